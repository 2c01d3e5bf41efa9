//! Dead letters: records that services could not process, on their dead-letter topics.
//!
//! - [`record`]: one dead letter, and reading topics of them; [`select`]: topics and filters;
//!   [`originals`]: the record that failed
//! - [`causes`]: grouping by cause; [`purge`]: deletion; [`replay`]: publishing again, each once;
//!   [`replay_log`]: which were replayed

pub mod causes;
mod error;
pub mod originals;
pub mod purge;
pub mod record;
pub mod replay;
pub mod replay_log;
pub mod select;

pub use error::DeadLetterError;
pub use record::{DeadLetterRecord, End};
