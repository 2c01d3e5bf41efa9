//! Which file of a crate imports from which: paths are resolved to the file that defines what they name, through re-exports.
//!
//! Tests inside of source files are left out. Paths that lead out of the crate, and methods, are no imports.

use proc_macro2::{TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use syn::visit::Visit;

/// The files of a crate, and the files that each of them imports from.
pub(crate) type Imports = BTreeMap<PathBuf, BTreeSet<PathBuf>>;

/// A module's place in its crate.
type ModulePath = Vec<String>;

/// Re-exports are followed no deeper than this.
const REEXPORTS_MAX: usize = 12;

/// Reads the crate with this root file.
pub(crate) fn of_crate(root: &Path) -> Imports {
    let mut tree = Tree::default();
    let folder = root.parent().expect("a root file in a folder");
    tree.read_file(Vec::new(), root, folder);
    tree.imports()
}

#[derive(Default)]
struct Module {
    file: PathBuf,
    children: BTreeSet<String>,
    items: BTreeSet<String>,
    /// Names that `use` brings in, and what they stand for.
    uses: BTreeMap<String, ModulePath>,
    globs: Vec<ModulePath>,
    /// Paths of several segments in the module's code.
    paths: BTreeSet<ModulePath>,
}

#[derive(Default)]
struct Tree {
    modules: BTreeMap<ModulePath, Module>,
}

impl Tree {
    fn read_file(&mut self, path: ModulePath, file: &Path, folder: &Path) {
        let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{file:?}: {e}"));
        let parsed = syn::parse_file(&text).unwrap_or_else(|e| panic!("{file:?}: {e}"));
        self.read_items(path, file, folder, &parsed.items);
    }

    fn read_items(&mut self, path: ModulePath, file: &Path, folder: &Path, items: &[syn::Item]) {
        let mut module = Module {
            file: file.to_owned(),
            ..Module::default()
        };
        for item in items.iter().filter(|item| !is_test(attributes(item))) {
            match item {
                syn::Item::Mod(child) => {
                    let name = child.ident.to_string();
                    let folder_of_child = folder.join(&name);
                    let path_of_child = [&path[..], std::slice::from_ref(&name)].concat();
                    match &child.content {
                        Some((_, items)) => {
                            self.read_items(path_of_child, file, &folder_of_child, items);
                        }
                        None => {
                            let flat = folder.join(format!("{name}.rs"));
                            let elsewhere = path_attribute(&child.attrs);
                            let file = match elsewhere {
                                Some(path) => file.with_file_name("").join(path),
                                None if flat.exists() => flat,
                                None => folder_of_child.join("mod.rs"),
                            };
                            self.read_file(path_of_child, &file, &folder_of_child);
                        }
                    }
                    module.children.insert(name);
                }
                syn::Item::Use(import) => module.add_use(&import.tree, &mut Vec::new()),
                item => {
                    module.items.extend(name_of(item));
                    Paths(&mut module).visit_item(item);
                }
            }
        }
        self.modules.insert(path, module);
    }

    fn imports(&self) -> Imports {
        let mut imports = Imports::new();
        for (path, module) in &self.modules {
            let of_file = imports.entry(module.file.clone()).or_default();
            for named in module.paths.iter().chain(module.uses.values()) {
                let definer = self
                    .resolve(path, named, 0)
                    .map(|path| &self.modules[&path]);
                let other = definer.filter(|definer| definer.file != module.file);
                of_file.extend(other.map(|definer| definer.file.clone()));
            }
        }
        imports
    }

    /// The module that defines what `named` stands for in the module at `from`; none outside of the crate, and for a module itself.
    fn resolve(&self, from: &[String], named: &[String], depth: usize) -> Option<ModulePath> {
        if depth > REEXPORTS_MAX {
            return None;
        }
        let mut at = from.to_vec();
        let mut rest = named;
        match named.first()?.as_str() {
            "crate" => {
                at.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            _ => {
                while rest.first().is_some_and(|segment| segment == "super") {
                    at.pop()?;
                    rest = &rest[1..];
                }
            }
        }
        loop {
            let module = self.modules.get(&at)?;
            let (name, behind) = rest.split_first()?;
            if module.children.contains(name) {
                at.push(name.clone());
                rest = behind;
                continue;
            }
            if module.items.contains(name) {
                return Some(at);
            }
            if let Some(target) = module.uses.get(name) {
                let is_itself = target.len() == 1 && target[0] == *name;
                let whole = [&target[..], behind].concat();
                return (!is_itself).then(|| self.resolve(&at, &whole, depth + 1))?;
            }
            let through =
                |glob: &ModulePath| self.resolve(&at, &[&glob[..], rest].concat(), depth + 1);
            return module.globs.iter().find_map(through);
        }
    }
}

impl Module {
    fn add_use(&mut self, tree: &syn::UseTree, prefix: &mut ModulePath) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.add_use(&path.tree, prefix);
                prefix.pop();
            }
            syn::UseTree::Name(name) if name.ident == "self" => {
                if let Some(last) = prefix.last() {
                    self.uses.insert(last.clone(), prefix.clone());
                }
            }
            syn::UseTree::Name(name) => {
                let name = name.ident.to_string();
                let whole = [&prefix[..], std::slice::from_ref(&name)].concat();
                self.uses.insert(name, whole);
            }
            syn::UseTree::Rename(renamed) => {
                let whole = [&prefix[..], &[renamed.ident.to_string()]].concat();
                let name = match renamed.rename.to_string() {
                    // Several may have no name.
                    name if name == "_" => whole.join("::"),
                    name => name,
                };
                self.uses.insert(name, whole);
            }
            syn::UseTree::Glob(_) => self.globs.push(prefix.clone()),
            syn::UseTree::Group(group) => {
                group
                    .items
                    .iter()
                    .for_each(|tree| self.add_use(tree, prefix));
            }
        }
    }

    fn add_path(&mut self, path: ModulePath) {
        if path.len() > 1 {
            self.paths.insert(path);
        }
    }
}

/// Collects the paths that an item names.
struct Paths<'a>(&'a mut Module);

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter();
        self.0
            .add_path(segments.map(|segment| segment.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }

    fn visit_item_use(&mut self, import: &'ast syn::ItemUse) {
        self.0.add_use(&import.tree, &mut Vec::new());
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.add_tokens(called.tokens.clone());
        syn::visit::visit_macro(self, called);
    }

    // Derives and documentation import nothing of ours.
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}

impl Paths<'_> {
    /// What a macro is given is no syntax yet, only tokens.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let (mut path, mut colons) = (ModulePath::new(), 0);
        for token in tokens {
            match token {
                TokenTree::Ident(name) if colons == 2 => {
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Ident(name) => {
                    self.0
                        .add_path(std::mem::replace(&mut path, vec![name.to_string()]));
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.0.add_path(std::mem::take(&mut path));
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.add_tokens(group.stream());
                    }
                }
            }
        }
        self.0.add_path(path);
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    let is_cfg_test = |attribute: &syn::Attribute| match &attribute.meta {
        syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    };
    attributes.iter().any(is_cfg_test)
}

/// The file that a module's `#[path]` names.
fn path_attribute(attributes: &[syn::Attribute]) -> Option<String> {
    let path = attributes
        .iter()
        .find(|attribute| attribute.path().is_ident("path"))?;
    let syn::Meta::NameValue(pair) = &path.meta else {
        return None;
    };
    match &pair.value {
        syn::Expr::Lit(literal) => match &literal.lit {
            syn::Lit::Str(path) => Some(path.value()),
            _ => None,
        },
        _ => None,
    }
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name_of(item: &syn::Item) -> Option<String> {
    let name = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Macro(item) => item.ident.as_ref()?,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}
