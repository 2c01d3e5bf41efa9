//! Runs the real binary as its users do.
//!
//! - `consume`: records are printed in every format, to the end or until stopped
//! - `publish`: input is validated, failures are named by line, receipts are printed
//! - `topics`, `groups`: against Apache Kafka, because the mock cluster knows no admin requests
//! - `dlq`: dead letters of every family are listed, shown, exported and purged
//! - `references`: originals of records that were too large are fetched, and missing ones named
//! - `replay`: each dead letter is published once and in order, through kills, stops and refusals
//! - `control`: running groups are paused, resumed, limited, and skip and retry records
//! - `outbox`, `store`: tables are migrated, committed events published, no password is printed
//! - `parked`: waiting keys are listed, and dead letters return to their group alone
//! - `bug_reports`: faults that users of other projects reported, with the place of each test
//! - `foreign`: dead letters of Spring's retry topics, Kafka's share groups and Kafka Streams
//! - `spring`: dead letters of Spring Kafka's own recoverer, and Spring Kafka with one of evenkeel
//! - `audit`: a group is proven, and missing, moved or unknown records are found, on each store
//! - `drill`: settled records are delivered again, and handlers that are not idempotent are named
//! - `output`: exit codes with readers that leave, lost output, keys of JSON, `--check`
//! - `unreadable`: a batch that no client can read is named, and other partitions continue
//! - `connection`: the cluster that a command reaches, and why it reaches none
//! - `acls`: commands without the needed ACLs, and names that do not exist
//! - `usage`: exit codes, configuration, completions, schemas: commands without a cluster

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
