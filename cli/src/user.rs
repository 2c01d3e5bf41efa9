//! Who gives a command.

/// Who is at the keyboard, as far as the environment says.
pub(crate) fn name() -> String {
    let named = |name| std::env::var(name).ok().filter(|user| !user.is_empty());
    named("USER")
        .or_else(|| named("LOGNAME"))
        .unwrap_or_else(|| "unknown".to_owned())
}
