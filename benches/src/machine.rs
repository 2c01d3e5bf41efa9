//! The measured machine: processor, memory, versions.

use serde::Serialize;

/// The machine and the versions of a measurement.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    cores: usize,
    processor: Option<String>,
    memory_gib: Option<u64>,
    evenkeel: &'static str,
    librdkafka: String,
    allocator: &'static str,
}

impl Machine {
    /// The machine on which this process runs.
    pub(crate) fn current() -> Self {
        let field = |file: &str, name: &str| {
            let text = std::fs::read_to_string(file).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = field("/proc/meminfo", "MemTotal");
        let kib = memory.and_then(|memory| memory.split(' ').next()?.parse::<u64>().ok());
        Self {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            processor: field("/proc/cpuinfo", "model name"),
            memory_gib: kib.map(|kib| kib >> 20),
            evenkeel: env!("CARGO_PKG_VERSION"),
            librdkafka: rdkafka::util::get_rdkafka_version().1,
            allocator: if cfg!(feature = "mimalloc") {
                "mimalloc"
            } else {
                "system"
            },
        }
    }
}
