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
async fn what_was_killed_or_stopped_comes_back_and_is_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut supervisor = supervisor(directory.path(), &[PATIENT]);
    until_up(&mut supervisor, 0, 1).await;
    supervisor
        .strike(&blow(Harm::Kill, 0))
        .await
        .expect("strikes");
    until_up(&mut supervisor, 0, 2).await;
    supervisor
        .strike(&blow(Harm::Stop, 0))
        .await
        .expect("strikes");
    until_up(&mut supervisor, 0, 3).await;
    supervisor
        .strike(&blow(Harm::Freeze, 0))
        .await
        .expect("strikes");
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
async fn a_blow_on_one_that_is_frozen_falls_on_the_next() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut supervisor = supervisor(directory.path(), &[PATIENT, PATIENT]);
    let mut freeze = blow(Harm::Freeze, 0);
    freeze.span = Duration::from_secs(600);
    supervisor.strike(&freeze).await.expect("strikes");
    let line = supervisor.strike(&freeze).await.expect("strikes");
    assert_eq!(
        line.as_deref(),
        Some("script-1 frozen, resumed after 600.0 s")
    );
    assert_eq!(supervisor.strike(&freeze).await.expect("strikes"), None);
    assert_eq!(supervisor.toll.freezes, 2);
}

#[tokio::test]
async fn a_stop_may_leave_records_to_the_next_start_and_to_no_last_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let unclean = "trap 'exit 5' TERM; echo up; while :; do sleep 0.02; done";
    let mut supervisor = supervisor(directory.path(), &[unclean]);
    until_up(&mut supervisor, 0, 1).await;
    supervisor
        .strike(&blow(Harm::Stop, 0))
        .await
        .expect("strikes");
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
async fn one_that_ends_by_itself_is_a_failure_and_is_started_again() {
    let directory = tempfile::tempdir().expect("a directory");
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
async fn a_stop_that_ends_badly_or_not_at_all_is_a_failure() {
    let directory = tempfile::tempdir().expect("a directory");
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
