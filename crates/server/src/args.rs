//! The command line.
//!
//! Values stay text here: the configuration reads them with everything else, so that a wrong flag is reported
//! together with a wrong key in the file instead of hiding it.

use std::path::PathBuf;

use clap::{ArgAction, Parser};

const TEACHING: &str = "\
Without options it serves http://localhost:8080 from up to 1 GiB of memory:
  elcached &
  curl -T photo.jpg http://localhost:8080/cache/photo.jpg
  curl -O http://localhost:8080/cache/photo.jpg

More examples:
  elcached -m 4G -p 9000               4 GiB of memory, port 9000
  elcached -c elcache.json             keys from a file; flags still win over it
  ELCACHE__LOG__LEVEL=debug elcached   any key from the environment: section, two
                                       underscores, key
  elcached -c elcache.json --check-config
                                       finds every mistake in it, starts nothing

Where a value comes from, lowest to highest: defaults, file, environment, flags.
SIGHUP reads the file again and applies what can change while the server runs.
Every key is explained in docs/configuration.md and config/elcache.json.example.";

/// A distributed blob cache: values from one byte to 20 TB over HTTP.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "elcached", version, about, after_help = TEACHING, disable_version_flag = true)]
pub struct Args {
    /// Configuration file (JSON, comments allowed) [default: none]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// HTTP port; 0 picks a free one and logs it [default: 8080]
    #[arg(short, long, value_name = "PORT")]
    pub port: Option<String>,

    /// Memory capacity in MiB, or with a suffix: 512M, 4G [default: 1024]
    #[arg(short, long, value_name = "MB")]
    pub memory: Option<String>,

    /// Directory of the disk tier [default: /var/cache/elcache]
    #[arg(short, long, value_name = "DIR")]
    pub disk: Option<String>,

    /// Disk capacity in GiB, or with a suffix; 0: off [default: 100]
    #[arg(short = 'D', long, value_name = "GB")]
    pub disk_size: Option<String>,

    /// Unix socket for clients of this machine; "": none [default: /var/run/elcache/elcache.sock]
    #[arg(short, long, value_name = "PATH")]
    pub unix: Option<String>,

    /// A cluster seed, repeatable; turns cluster mode on; not available yet [default: none]
    #[arg(short, long, value_name = "HOST:PORT")]
    pub seed: Vec<String>,

    /// Form of the log: auto, text or json [default: auto]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,

    /// Least level to log: off, error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,

    /// Validate, print the effective configuration as JSON, exit 0 or 1
    #[arg(long)]
    pub check_config: bool,

    /// Print the version
    #[arg(short = 'V', visible_short_alias = 'v', long, action = ArgAction::Version)]
    pub version: (),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;
    use crate::config::Config;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn both_letters_print_the_version() {
        for flag in ["-V", "-v", "--version"] {
            let outcome = Args::try_parse_from(["elcached", flag]);
            assert_eq!(outcome.err().map(|e| e.kind()), Some(ErrorKind::DisplayVersion), "{flag}");
        }
    }

    #[test]
    fn seeds_repeat() {
        let args = Args::try_parse_from(["elcached", "-s", "a:1", "--seed", "b:2"]).unwrap();
        assert_eq!(args.seed, ["a:1", "b:2"]);
    }

    #[test]
    fn the_help_states_the_defaults() {
        let help = Args::command().render_long_help().to_string();
        let defaults = Config::default();
        for stated in [
            format!("logs it [default: {}]", defaults.network.http_port),
            format!("4G [default: {}]", defaults.memory.max_size.bytes() >> 20),
            format!("off [default: {}]", defaults.disk.max_size.bytes() >> 30),
            format!("none [default: {}]", defaults.network.unix_socket_path.0.display()),
        ] {
            assert!(help.contains(&stated), "{stated:?} is not in\n{help}");
        }
    }
}
