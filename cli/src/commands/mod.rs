//! The commands, one file each, and their runtime.
//!
//! - [`events`]: `publish`, `consume`, `schemas`; [`topics`]; [`groups`]
//! - [`dlq`], [`parked`]: records that failed; [`audit`], [`drill`]: checks of a group
//! - [`stores`]: `outbox`, `store`; [`setup`]: `config`, `completions`, `man`, `dev`
//!
//! Each command has a struct of arguments, whose doc comments are its help text, and a function
//! `run` that returns an [`Ending`] or an error. The exit code of an error follows from its type,
//! so operations' errors are reduced to the cluster's error where that is the cause.
//!
//! Two kinds of commands differ in a stop. `publish`, `consume`, `dlq`, `drill` and `outbox` watch
//! the signal themselves, because they have work to finish. All others are dropped at the first
//! signal.

pub(crate) mod audit;
pub(crate) mod dlq;
pub(crate) mod drill;
pub(crate) mod events;
pub(crate) mod groups;
pub(crate) mod parked;
pub(crate) mod setup;
pub(crate) mod stores;
pub(crate) mod topics;

use crate::command_line::{Args, Command};
use crate::help;
use crate::hints;
use anyhow::Context;
use evenkeel::kafka::KafkaError;
use evenkeel_ops::audit::AuditError;
use evenkeel_ops::dead_letters::DeadLetterError;
use evenkeel_ops::drills::DrillError;
use evenkeel_ops::groups::GroupError;
use evenkeel_ops::waiting_keys::WaitingKeysError;
use evenkeel_program::exit::Ending;
use evenkeel_program::log;
use evenkeel_program::stop::Stop;
use events::{consume, publish, schemas};
#[cfg(feature = "dev")]
use setup::dev;
use setup::{completions, config};
use stores::{outbox, store};

/// Runs the command to its end.
pub(crate) fn run(args: Args) -> anyhow::Result<Ending> {
    // Log nothing by default: a command reports its errors itself.
    log::to_stderr(match &args.command {
        Command::Outbox(args) => args.log_default(),
        _ => "off",
    });
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(dispatch(args.command))
}

/// Runs the command, and adds a hint to its error.
async fn dispatch(command: Command) -> anyhow::Result<Ending> {
    let connection = command.connection().cloned();
    let creates = matches!(command, Command::Publish(_));
    match (
        run_command(command).await.map_err(into_cluster_error),
        connection,
    ) {
        (Err(error), Some(connection)) => Err(hints::with_hint(error, &connection, creates).await),
        (ended, _) => ended,
    }
}

/// Extracts the error of the cluster or of the store from that of an operation. Exit codes and
/// hints depend on it.
fn into_cluster_error(error: anyhow::Error) -> anyhow::Error {
    fn extract<E>(error: E, into_kafka: impl FnOnce(E) -> Result<KafkaError, E>) -> anyhow::Error
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        into_kafka(error).map_or_else(anyhow::Error::from, anyhow::Error::from)
    }
    let error = match error.downcast() {
        Ok(AuditError::Store(error)) => return error.into(),
        Ok(error) => return extract(error, AuditError::into_kafka),
        Err(error) => error,
    };
    let error = match error.downcast() {
        Ok(error) => return extract(error, DeadLetterError::into_kafka),
        Err(error) => error,
    };
    let error = match error.downcast() {
        Ok(error) => return extract(error, GroupError::into_kafka),
        Err(error) => error,
    };
    let error = match error.downcast() {
        Ok(error) => return extract(error, WaitingKeysError::into_kafka),
        Err(error) => error,
    };
    match error.downcast() {
        Ok(error) => extract(error, DrillError::into_kafka),
        Err(error) => error,
    }
}

/// Runs the command with the signals of this process.
async fn run_command(command: Command) -> anyhow::Result<Ending> {
    let stop = Stop::listen().context("listening for signals")?;
    match command {
        // These commands have work to finish when they are stopped.
        Command::Publish(args) => publish::run(args, stop).await,
        Command::Consume(args) => consume::run(args, stop).await,
        Command::Dlq(args) => dlq::run(args, stop).await,
        Command::Drill(args) => drill::run(args, stop).await,
        Command::Outbox(args) => outbox::run(args, stop).await,
        command => tokio::select! {
            ending = run_droppable(command) => ending,
            signal = stop.signalled() => Ok(Ending::Stopped(signal)),
        },
    }
}

/// Runs a command that may be dropped at any await.
async fn run_droppable(command: Command) -> anyhow::Result<Ending> {
    match command {
        Command::Topics(args) => topics::run(args).await,
        Command::Groups(args) => groups::run(args).await,
        Command::Parked(args) => parked::run(args).await,
        Command::Audit(args) => audit::run(args).await,
        Command::Schemas(args) => schemas::run(args),
        Command::Store(args) => store::run(args).await,
        Command::Config(args) => config::run(args),
        #[cfg(feature = "dev")]
        Command::Dev(args) => dev::run(args).await,
        Command::Completions(args) => completions::run(args, help::command()),
        Command::Man(args) => completions::run_man(args, help::command()),
        Command::Publish(_)
        | Command::Consume(_)
        | Command::Dlq(_)
        | Command::Drill(_)
        | Command::Outbox(_) => {
            unreachable!("dispatched by the caller")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::inbox::InboxError;
    use evenkeel_program::exit;

    #[test]
    fn the_exit_code_of_an_audit_is_that_of_its_cause() {
        let unreachable = KafkaError::Unreachable {
            brokers: "localhost:1".to_owned(),
            seconds: 1,
            cause: "refused".to_owned(),
        };
        let setting = InboxError::Setting("no store".to_owned());
        let errors = [
            (AuditError::Kafka(unreachable), exit::UNREACHABLE),
            (AuditError::Store(setting), exit::USAGE),
            (AuditError::Stopped, exit::FAILED),
        ];
        for (error, expected) in errors {
            let text = error.to_string();
            let error = into_cluster_error(error.into());
            assert_eq!(exit::code(&error), expected, "{error:?}");
            assert_eq!(error.to_string(), text);
        }
    }
}
