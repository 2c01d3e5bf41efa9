//! The program `gateway`: command line, configuration file, and the run of a process.
//!
//! - [`main`]: the binary's `main`
//! - [`Options`]: the flags; [`ConfigFile`]: the configuration file
//! - [`run`]: from the settings to the exit code

mod command_line;
mod config_file;
mod limits;
mod run;

pub use command_line::{Options, main};
pub use config_file::ConfigFile;
pub use run::{ProgramSettings, run};
