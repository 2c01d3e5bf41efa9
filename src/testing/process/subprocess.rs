//! Runs another program to its end: `java`, `mvn`, `docker`.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

/// The standard output of a program. Otherwise the reason for its failure in a few words.
///
/// The program is killed after `limit`, and when the future is dropped.
pub(in crate::testing) async fn output<I>(
    program: impl AsRef<OsStr>,
    arguments: I,
    limit: Duration,
) -> Result<String, String>
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    let program = program.as_ref();
    let name = program.to_string_lossy().into_owned();
    let run = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match tokio::time::timeout(limit, run).await {
        Err(_) => return Err(format!("`{name}` did not end within {} s", limit.as_secs())),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(format!("the command `{name}` was not found"));
        }
        Ok(Err(error)) => return Err(format!("`{name}` cannot be run: {error}")),
        Ok(Ok(output)) => output,
    };
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "`{name}` failed: {}",
        last_line(&complaint, &printed)
    ))
}

/// The last line that is not blank, preferably of `first`. Of a Java stack trace, the last cause.
pub(in crate::testing) fn last_line<'a>(first: &'a str, second: &'a str) -> &'a str {
    let is_frame = |line: &str| line.starts_with("at ") || line.starts_with("... ");
    [first, second]
        .into_iter()
        .find_map(|text| {
            let mut lines = text.lines().map(str::trim);
            lines.rfind(|line| !line.is_empty() && !is_frame(line))
        })
        .unwrap_or("it printed nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, limit_ms: u64) -> Result<String, String> {
        output("sh", ["-c", script], Duration::from_millis(limit_ms)).await
    }

    #[tokio::test]
    async fn a_program_gives_its_output_or_its_last_line() {
        assert_eq!(sh("echo yes", 5_000).await, Ok("yes\n".to_owned()));
        assert_eq!(
            sh("echo first >&2; echo second >&2; echo >&2; exit 3", 5_000).await,
            Err("`sh` failed: second".to_owned())
        );
        assert_eq!(
            sh("exit 3", 5_000).await,
            Err("`sh` failed: it printed nothing".to_owned())
        );
    }

    #[test]
    fn a_stack_trace_is_told_by_its_last_cause() {
        let trace =
            "Exception: a\n\tat A.b(A.java:1)\nCaused by: b\n\tat C.d(C.java:2)\n\t... 3 more";
        assert_eq!(last_line(trace, "printed"), "Caused by: b");
    }

    #[tokio::test]
    async fn a_program_that_hangs_or_is_missing_is_named() {
        assert_eq!(
            sh("sleep 60", 50).await,
            Err("`sh` did not end within 0 s".to_owned())
        );
        let missing = output("no-such-program", ["x"], Duration::from_secs(1)).await;
        assert_eq!(
            missing,
            Err("the command `no-such-program` was not found".to_owned())
        );
    }
}
