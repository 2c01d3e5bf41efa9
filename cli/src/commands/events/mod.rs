//! Commands on events and their types: `publish`, `consume`, `schemas`.

pub(crate) mod consume;
pub(crate) mod publish;
pub(crate) mod schemas;
