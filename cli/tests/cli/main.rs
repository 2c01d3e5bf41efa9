//! Runs the real binary as its users do.
//!
//! - `consume`: what is on the log is shown, in every form, to the end or until stopped
//! - `publish`: input is checked, failures are named by line, receipts are given
//! - `topics`, `groups`: against Apache Kafka, because the mock cluster knows no admin requests
//! - `dlq`: dead letters of every family are listed, shown, exported and purged
//! - `references`: letters of records that were too large are fetched whole, or said to be gone
//! - `replay`: dead letters go back once and in order, whatever is killed, stopped or refused
//! - `control`: running groups are paused, resumed, slowed down, and skip and retry records, and their history shows it
//! - `outbox`, `store`: tables are made, committed events are published, what waits is shown, and no password is
//! - `parked`: what waits is listed, and dead letters come back to their group alone
//! - `bug_reports`: faults that users of other projects reported, with the place of each test
//! - `foreign`: letters of Spring's retry topics, of Kafka's share groups and of Kafka Streams, as these wrote them
//! - `spring`: letters of Spring Kafka's own recoverer, and Spring Kafka with a letter of ours
//! - `audit`: a group proves what became of every record, on each store; what is taken away, moved or unknown is found
//! - `drill`: a live group gets what it has settled once more, and handlers that are not idempotent are named
//! - `output`: exit codes survive readers that leave, no output is lost silently, names in JSON stay, `--check` judges
//! - `unreadable`: a batch that no client can read is named, and other partitions go on
//! - `connection`: which cluster a command reaches, and why it reaches none
//! - `acls`: what a command says that may not see what it asks for, and names that do not exist
//! - `usage`: exit codes, configuration, completions, schemas: what needs no cluster

mod acls;
mod audit;
mod bug_reports;
mod connection;
mod consume;
mod control;
mod dead_letters;
mod dlq;
mod drill;
mod foreign;
mod groups;
mod outbox;
mod output;
mod parked;
mod publish;
mod references;
mod replay;
mod spring;
mod tool;
mod topics;
mod unreadable;
mod usage;
