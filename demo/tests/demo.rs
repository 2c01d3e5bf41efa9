//! Runs the real demo on the mock cluster: checks the printed object, and that no process is left
//! behind.

use evenkeel::testing::{ChildProcess, eventually};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// No run takes that long unless it hangs. The first builds the shop's binaries.
const WITHIN: Duration = Duration::from_secs(900);

/// The demo, on a cluster that every machine has.
fn demo(arguments: &[&str]) -> Command {
    let mut command = ChildProcess::command(env!("CARGO_BIN_EXE_shop-demo"));
    command
        .args(["--kafka", "mock", "--output", "json"])
        .args(arguments);
    command
}

#[tokio::test]
async fn ten_seconds_on_the_mock_cluster_balance() {
    let mut command = demo(&["--for", "10s", "--rate", "40", "--seed", "1"]);
    command.stderr(Stdio::inherit());
    let finished = ChildProcess::run(command, "", WITHIN).await.code(0);
    let report = finished.json();
    assert_eq!(
        finished.stdout.lines().count(),
        1,
        "one object and nothing else: {finished}"
    );
    assert_eq!(report["balanced"], true, "{report:#}");
    for nothing in ["lost", "twice", "out_of_order", "dead_letters", "kills"] {
        assert_eq!(report[nothing], 0, "{nothing} in {report:#}");
    }
    let count = |name: &str| report[name].as_u64().unwrap_or_default();
    assert!(count("acknowledged") >= 300, "{report:#}");
    assert!(count("published") > count("acknowledged"), "{report:#}");
    assert!(report["lag_max_seconds"].is_number(), "{report:#}");
    assert!(count("sample_age_max_ms") > 0, "{report:#}");
    assert_eq!(report["partitions_unknown_max"], 0, "{report:#}");
    let gateway = |name: &str| report["gateway"][name].as_u64().unwrap_or_default();
    assert!(gateway("answered") >= 100, "{report:#}");
    assert_eq!(
        (gateway("refused"), gateway("unknown")),
        (0, 0),
        "{report:#}"
    );
    assert!(gateway("cuts") >= 3, "{report:#}");
    assert!(gateway("streamed") > count("published"), "{report:#}");
    let effects = report["effects"].as_object().expect("effects by service");
    let services: Vec<&str> = effects.keys().map(String::as_str).collect();
    assert_eq!(
        services,
        [
            "inventory",
            "notifications",
            "orderboard",
            "payments",
            "shipping"
        ]
    );
    assert!(
        effects.values().all(|effects| effects.as_u64() > Some(0)),
        "{report:#}"
    );
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn neither_an_interrupt_nor_a_kill_leaves_a_process_behind() {
    for (signal, code) in [("INT", Some(130)), ("KILL", None)] {
        let directory = tempfile::tempdir().expect("a temporary folder is created");
        let keep = directory.path().join("run");
        let mut command = demo(&["--for", "10m", "--rate", "5", "--keep"]);
        command.arg(&keep).stdout(Stdio::null());
        let demo = ChildProcess::start(command).expect("the binary was built with this test");
        demo.printed("orders/s for", WITHIN).await;
        assert!(processes_with(&keep) >= 10, "every daemon names its store");
        demo.signal(signal);
        assert_eq!(demo.finished(WITHIN).await.code, code);
        let what = format!("no process is left after SIG{signal}");
        eventually(&what, Duration::from_secs(20), || async {
            (processes_with(&keep) == 0).then_some(())
        })
        .await;
    }
}

/// The number of living processes with `path` in their command line, without the demo itself.
#[cfg(target_os = "linux")]
fn processes_with(path: &Path) -> usize {
    let needle = path.display().to_string();
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return 0;
    };
    processes
        .flatten()
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .filter(|line| line.contains(&needle) && !line.contains("shop-demo"))
        .count()
}
