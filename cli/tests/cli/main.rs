//! Runs the real binary as its users do.
//!
//! - `events`: what is published, and what is printed of a topic, also of an unreadable batch
//! - `topics`, `groups`: against Apache Kafka, because the mock cluster knows no admin requests;
//!   below `groups`: commands to running groups, waiting keys, audits and drills
//! - `dead_letters`: dead letters of evenkeel and of others, their originals and their replay
//! - `outbox`, `store`: tables are migrated, committed events published, no password is printed
//! - `bug_reports`: faults that users of other projects reported, with the place of each test
//! - `output`: exit codes with readers that leave, lost output, keys of JSON, `--check`
//! - `connection`: the cluster that a command reaches, and why it reaches none; below it `acls`:
//!   commands without the needed ACLs, and names that do not exist
//! - `usage`: exit codes, configuration, completions, schemas: commands without a cluster
//! - `support`: the binary as a process, members in this process, topics with dead letters

mod bug_reports;
mod connection;
mod dead_letters;
mod events;
mod groups;
mod outbox;
mod output;
mod support;
mod topics;
mod usage;
