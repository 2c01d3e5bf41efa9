//! A supervisor of shell scripts, with the harm of chaos.

use super::*;
use std::path::Path;

/// A program that ends successfully on SIGTERM, and otherwise waits forever. It prints `up`.
const PATIENT: &str = "trap 'exit 0' TERM; echo up; while :; do sleep 0.02; done";
/// A program that fails on SIGTERM.
const SULKING: &str = "trap 'exit 7' TERM; echo up; while :; do sleep 0.02; done";

fn supervisor(directory: &Path, scripts: &[&str]) -> Supervisor {
    let daemons = scripts.iter().enumerate().map(|(number, script)| {
        let program = Program {
            name: format!("script-{number}"),
            executable: "/bin/sh".into(),
            arguments: ["-c", script].map(Into::into).to_vec(),
            log: directory.join(number.to_string()),
            output: None,
        };
        Daemon::new(program, "script", 0)
    });
    let guard = Guard::start().expect("sh runs");
    Supervisor::start(daemons.collect(), guard).expect("sh runs")
}

fn blow(harm: Harm, victim: usize) -> Blow {
    Blow {
        at: Duration::ZERO,
        harm,
        victim,
        span: Duration::from_millis(10),
    }
}

/// Ticks until `seen` is true of the supervisor.
async fn until(supervisor: &mut Supervisor, seen: impl Fn(&Supervisor) -> bool) {
    let ticking = async {
        while !seen(supervisor) {
            supervisor.tick().await.expect("ticks");
            tokio::time::sleep(TICK).await;
        }
    };
    let within = Duration::from_secs(20);
    tokio::time::timeout(within, ticking)
        .await
        .expect("seen within 20 s");
}

/// Ticks until `script-number` has started `times` times and is up.
async fn until_up(supervisor: &mut Supervisor, number: usize, times: usize) {
    until(supervisor, |supervisor| {
        let daemon = &supervisor.daemons[number];
        daemon.state == State::Up && tail(&daemon.program.log, 1_000).lines().count() == times
    })
    .await;
}

#[tokio::test]
async fn killed_and_stopped_processes_restart_and_are_counted() {
    let directory = tempfile::tempdir().expect("a temporary folder is created");
    let mut supervisor = supervisor(directory.path(), &[PATIENT]);
    until_up(&mut supervisor, 0, 1).await;
    supervisor
        .strike(&blow(Harm::Kill, 0))
        .await
        .expect("the blow falls");
    until_up(&mut supervisor, 0, 2).await;
    supervisor
        .strike(&blow(Harm::Stop, 0))
        .await
        .expect("the blow falls");
    until_up(&mut supervisor, 0, 3).await;
    supervisor
        .strike(&blow(Harm::Freeze, 0))
        .await
        .expect("the blow falls");
    assert!(matches!(supervisor.daemons[0].state, State::Frozen(_)));
    until_up(&mut supervisor, 0, 3).await;
    supervisor
        .finish(Duration::from_secs(20))
        .await
        .expect("stops");
    let expected = Toll {
        kills: 1,
        freezes: 1,
        stops: 1,
        failures: Vec::new(),
    };
    assert_eq!(supervisor.toll, expected);
    assert!(!supervisor.daemons[0].lives());
}

#[tokio::test]
async fn a_blow_on_a_frozen_process_hits_the_next() {
    let directory = tempfile::tempdir().expect("a temporary folder is created");
    let mut supervisor = supervisor(directory.path(), &[PATIENT, PATIENT]);
    let mut freeze = blow(Harm::Freeze, 0);
    freeze.span = Duration::from_secs(600);
    supervisor.strike(&freeze).await.expect("the blow falls");
    let line = supervisor.strike(&freeze).await.expect("the blow falls");
    assert_eq!(
        line.as_deref(),
        Some("script-1 frozen, resumed after 600.0 s")
    );
    assert_eq!(
        supervisor.strike(&freeze).await.expect("the blow falls"),
        None
    );
    assert_eq!(supervisor.toll.freezes, 2);
}

#[tokio::test]
async fn an_unclean_stop_is_a_failure_only_at_the_end() {
    let directory = tempfile::tempdir().expect("a temporary folder is created");
    let unclean = "trap 'exit 5' TERM; echo up; while :; do sleep 0.02; done";
    let mut supervisor = supervisor(directory.path(), &[unclean]);
    until_up(&mut supervisor, 0, 1).await;
    supervisor
        .strike(&blow(Harm::Stop, 0))
        .await
        .expect("the blow falls");
    until_up(&mut supervisor, 0, 2).await;
    assert_eq!(supervisor.toll.failures, [""; 0]);
    supervisor
        .finish(Duration::from_secs(20))
        .await
        .expect("stops");
    let left = "script-0 ended when asked to stop with exit status: 5";
    assert_eq!(supervisor.toll.failures, [left]);
}

#[tokio::test]
async fn a_process_that_ends_by_itself_fails_and_restarts() {
    let directory = tempfile::tempdir().expect("a temporary folder is created");
    let mut supervisor = supervisor(directory.path(), &["echo up; exit 3"]);
    until(&mut supervisor, |supervisor| {
        supervisor.toll.failures.len() == 2
    })
    .await;
    assert_eq!(
        supervisor.toll.failures[0],
        "script-0 ended by itself with exit status: 3"
    );
}

#[tokio::test]
async fn a_stop_with_an_error_or_without_an_end_fails() {
    let directory = tempfile::tempdir().expect("a temporary folder is created");
    let deaf = "trap '' TERM; echo up; while :; do sleep 0.02; done";
    let mut supervisor = supervisor(directory.path(), &[SULKING, deaf]);
    until_up(&mut supervisor, 0, 1).await;
    until_up(&mut supervisor, 1, 1).await;
    supervisor
        .finish(Duration::from_secs(1))
        .await
        .expect("stops");
    assert_eq!(
        supervisor.toll.failures,
        [
            "script-0 ended when asked to stop with exit status: 7",
            "script-1 had not ended 1 s after it was asked to stop"
        ]
    );
}
