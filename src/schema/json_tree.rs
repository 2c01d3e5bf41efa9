//! JSON that borrows its texts, for validation without a copy of each.

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, Node, NodeIdentity, Object, cmp};
use serde_json::{Number, Value};
use std::borrow::Cow;

/// A parsed JSON text, whose strings are parts of the text where it has no escapes. A list of
/// members takes a third of the room of a [`Value`]'s map, and one allocation in all.
///
/// [`Catalogue::is_valid`](super::Catalogue::is_valid) reads it. Members have the order of the
/// text. Names must differ: whoever makes the tree sees to it.
#[derive(Debug, Clone, PartialEq)]
pub enum JsonTree<'t> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    String(Cow<'t, str>),
    /// An array.
    Array(Vec<JsonTree<'t>>),
    /// An object: names and values.
    Object(Vec<(Cow<'t, str>, JsonTree<'t>)>),
}

impl From<&JsonTree<'_>> for Value {
    fn from(tree: &JsonTree<'_>) -> Self {
        match tree {
            JsonTree::Null => Self::Null,
            JsonTree::Bool(value) => Self::Bool(*value),
            JsonTree::Number(number) => Self::Number(number.clone()),
            JsonTree::String(text) => Self::String(text.clone().into_owned()),
            JsonTree::Array(items) => Self::Array(items.iter().map(Self::from).collect()),
            JsonTree::Object(members) => {
                let members = members.iter();
                let members = members.map(|(name, value)| (name.to_string(), Self::from(value)));
                Self::Object(members.collect())
            }
        }
    }
}

/// The validator's name for [`JsonTree`].
pub(super) enum TreeJson {}

impl Json for TreeJson {
    type Node<'a> = &'a JsonTree<'a>;
    type PreparedKey = String;
    type StringBuffer = ();

    // A lookup compares names until it finds its own, as one in a map does.
    const KEYS_PER_LOOKUP: usize = 2;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(_: &mut (), string: &str, f: impl FnOnce(Self::Node<'_>) -> T) -> T {
        f(&JsonTree::String(Cow::Borrowed(string)))
    }
}

impl<'a> Node<'a, TreeJson> for &'a JsonTree<'a> {
    type Object = &'a [(Cow<'a, str>, JsonTree<'a>)];
    type Array = &'a [JsonTree<'a>];
    type Number = &'a Number;

    fn as_object(&self) -> Option<Self::Object> {
        match *self {
            JsonTree::Object(members) => Some(members),
            _ => None,
        }
    }

    fn as_array(&self) -> Option<Self::Array> {
        match *self {
            JsonTree::Array(items) => Some(items),
            _ => None,
        }
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        match *self {
            JsonTree::String(text) => Some(Cow::Borrowed(&**text)),
            _ => None,
        }
    }

    fn as_number(&self) -> Option<Self::Number> {
        match *self {
            JsonTree::Number(number) => Some(number),
            _ => None,
        }
    }

    fn as_boolean(&self) -> Option<bool> {
        match *self {
            JsonTree::Bool(value) => Some(*value),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        matches!(*self, JsonTree::Null)
    }

    fn json_type(&self) -> JsonType {
        match *self {
            JsonTree::Null => JsonType::Null,
            JsonTree::Bool(_) => JsonType::Boolean,
            JsonTree::Number(_) => JsonType::Number,
            JsonTree::String(_) => JsonType::String,
            JsonTree::Array(_) => JsonType::Array,
            JsonTree::Object(_) => JsonType::Object,
        }
    }

    fn equals_value(&self, expected: &Value) -> bool {
        match (*self, expected) {
            (JsonTree::String(text), Value::String(expected)) => **text == **expected,
            (JsonTree::String(_), _) | (_, Value::String(_)) => false,
            (tree, expected) => cmp::equal(&Value::from(tree), expected),
        }
    }

    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Owned(Value::from(*self))
    }

    fn identity(&self) -> Option<NodeIdentity> {
        let address = std::ptr::from_ref::<JsonTree<'a>>(*self) as usize;
        Some(NodeIdentity::new(address))
    }
}

/// The members of an object.
pub(super) struct Members<'a>(std::slice::Iter<'a, (Cow<'a, str>, JsonTree<'a>)>);

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, &'a JsonTree<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (&**name, value))
    }
}

impl<'a> Object<'a, TreeJson> for &'a [(Cow<'a, str>, JsonTree<'a>)] {
    type Node = &'a JsonTree<'a>;
    type MemberName = &'a str;
    type MembersIter = Members<'a>;

    fn len(&self) -> usize {
        (**self).len()
    }

    fn get(&self, key: &String) -> Option<Self::Node> {
        let found = (*self).iter().find(|(name, _)| **name == **key);
        found.map(|(_, value)| value)
    }

    fn members(&self) -> Members<'a> {
        Members((*self).iter())
    }
}

impl<'a> Array<'a, TreeJson> for &'a [JsonTree<'a>] {
    type Node = &'a JsonTree<'a>;
    type ElementsIter = std::slice::Iter<'a, JsonTree<'a>>;

    fn len(&self) -> usize {
        (**self).len()
    }

    fn elements(&self) -> Self::ElementsIter {
        (*self).iter()
    }
}
