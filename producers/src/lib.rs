//! The shop's producer commands: `orders` and `stock`.
//!
//! Each command is a pair: a struct of texts that clap fills, and what is built from it and run. Lines of a file,
//! identities, progress and the content of a simulation are decided without a client, in files of their own.
//!
//! | module | owns |
//! |---|---|
//! | [`orders`] | `orders place`, `cancel`, `import`, `simulate` |
//! | [`stock`] | `stock receive`, `fill`, `import` |
//! | [`import`] | reading a file line by line, publishing it in order, resuming it |
//! | [`simulate`] | seeded orders at a steady rate, and the journal of their outcomes |
//! | [`articles`] | what the shop sells |
//! | [`connection`] | flags that say how to reach Kafka, and the check that it answers |
//! | [`pipeline`] | events under way, settled in the order they were sent |
//! | [`output`], [`display`] | results on standard output, progress on standard error |
//! | [`stop`], [`exit`] | signals and exit codes |

pub mod articles;
pub mod connection;
pub mod display;
pub mod exit;
pub mod import;
pub mod orders;
pub mod output;
pub mod pipeline;
pub mod publish;
pub mod simulate;
pub mod stock;
pub mod stop;
