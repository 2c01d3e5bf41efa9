//! `evenkeel dlq`.
//!
//! - `dlq`: dead letters of every family are listed, shown, exported and purged
//! - `references`: originals of records that were too large are fetched, and missing ones named
//! - `replay`: each dead letter is published once and in order, through kills, stops and refusals
//! - `foreign`: dead letters of Spring's retry topics, Kafka's share groups and Kafka Streams
//! - `spring`: dead letters of Spring Kafka's own recoverer, and Spring Kafka with one of evenkeel

mod dlq;
mod foreign;
mod references;
mod replay;
mod spring;
