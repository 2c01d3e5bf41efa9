//! Runs the real demo on the mock cluster: checks the printed object, and that no process is left
//! behind.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The demo, on a cluster that every machine has.
fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shop-demo"));
    command
        .args(["--kafka", "mock", "--output", "json"])
        .args(arguments);
    command
}

#[test]
fn ten_seconds_on_the_mock_cluster_balance() -> anyhow::Result<()> {
    let output = demo(&["--for", "10s", "--rate", "40", "--seed", "1"])
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let report: serde_json::Value = serde_json::from_str(&text)?;
    assert_eq!(
        text.lines().count(),
        1,
        "one object and nothing else: {text}"
    );
    assert!(output.status.success(), "{report:#}");
    assert_eq!(report["balanced"], true, "{report:#}");
    for nothing in ["lost", "twice", "out_of_order", "dead_letters", "kills"] {
        assert_eq!(report[nothing], 0, "{nothing} in {report:#}");
    }
    let count = |name: &str| report[name].as_u64().unwrap_or_default();
    assert!(count("acknowledged") >= 300, "{report:#}");
    assert!(count("published") > count("acknowledged"), "{report:#}");
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
    Ok(())
}

#[test]
#[cfg(target_os = "linux")]
fn neither_an_interrupt_nor_a_kill_leaves_a_process_behind() -> anyhow::Result<()> {
    for (signal, code) in [("INT", Some(130)), ("KILL", None)] {
        let directory = tempfile::tempdir()?;
        let keep = directory.path().join("run");
        let mut demo = demo(&["--for", "10m", "--rate", "5", "--keep"])
            .arg(&keep)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(demo.stderr.take().expect("it is piped"));
        let ready = lines
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains("orders/s for"));
        assert!(ready, "the demo ended before it came to the orders");
        assert!(processes_with(&keep) >= 8, "every daemon names its store");
        let pid = demo.id().to_string();
        let sent = Command::new("sh")
            .args(["-c", r#"kill -s "$1" "$2""#, "sh", signal, &pid])
            .status()?;
        assert!(sent.success());
        assert_eq!(demo.wait()?.code(), code);
        let deadline = Instant::now() + Duration::from_secs(20);
        while processes_with(&keep) > 0 {
            assert!(
                Instant::now() < deadline,
                "processes are left after SIG{signal}"
            );
            std::thread::yield_now();
        }
    }
    Ok(())
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
