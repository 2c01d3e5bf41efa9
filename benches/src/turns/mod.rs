//! One turn of a contestant: what it runs, how its result is checked, and what it used.
//!
//! - [`run`], [`paced`]: shared code of turns; [`check`]: a fast wrong answer fails; [`usage`]:
//!   processor time and memory

pub(crate) mod check;
pub(crate) mod paced;
pub(crate) mod run;
pub(crate) mod usage;
