//! Dead letters: records that services could not process, on their dead-letter topics.
//!
//! - [`record`]: one dead letter, and reading topics of them; [`select`]: topics and filters;
//!   [`originals`]: the record that failed
//! - [`causes`]: grouping by cause; [`purge`]: deletion; [`replay`]: publishing again, each once;
//!   [`replay_log`]: which were replayed
//!
//! Any record with failure headers is a dead letter, whichever framework wrote it
//! ([`Family`](evenkeel::recovery::Family)). Operations read topics up to the end offsets at their
//! start, so that a topic that still grows does not keep them for ever.
//!
//! ```no_run
//! use evenkeel::kafka::KafkaError;
//! use evenkeel_ops::Cluster;
//! use evenkeel_ops::dead_letters::{DeadLetterRecord, record};
//! use tokio_util::sync::CancellationToken;
//!
//! # fn example(cluster: &Cluster) -> Result<(), KafkaError> {
//! let topics = ["dlq.payments.shop.orders".to_owned()];
//! record::read(cluster, &topics, &CancellationToken::new(), |record| {
//!     let dead_letter = DeadLetterRecord::new(record);
//!     println!("{}: {:?}", dead_letter.position(), dead_letter.failure.message);
//!     Ok::<bool, KafkaError>(true)
//! })?;
//! # Ok(())
//! # }
//! ```

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
