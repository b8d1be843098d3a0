//! The servers that are compared: what each can do and how each is started.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use elcache_bench::protocol::Protocol;
use elcache_bench::workload::{Kind, Workload};

use crate::server::{Server, free_address, make_directory};

const NGINX_CONFIGURATION: &str = include_str!("../../../nginx.conf.in");

/// A server that takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Peer {
    Elcache,
    Nginx,
    Varnish,
    Redis,
    Memcached,
}

impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Elcache => "elcache",
            Self::Nginx => "nginx",
            Self::Varnish => "varnish",
            Self::Redis => "redis",
            Self::Memcached => "memcached",
        })
    }
}

impl Peer {
    pub(crate) const ALL: [Self; 5] =
        [Self::Elcache, Self::Nginx, Self::Varnish, Self::Redis, Self::Memcached];
    pub(crate) const QUICK: [Self; 2] = [Self::Elcache, Self::Nginx];

    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Self::Elcache | Self::Nginx | Self::Varnish => Protocol::Http,
            Self::Redis => Protocol::Redis,
            Self::Memcached => Protocol::Memcached,
        }
    }

    /// Why it does not take part in a workload.
    pub(crate) fn skips(self, workload: &Workload) -> Option<&'static str> {
        match (self, workload.kind) {
            (Self::Redis, Kind::Range) => Some("a value ends at 512 MiB"),
            (Self::Memcached, Kind::Range) => Some("no ranges, and a value ends at 1 GiB with -I"),
            (Self::Varnish, Kind::Put) => Some("stores what its backend sends, not what a client puts"),
            _ => None,
        }
    }

    /// What it says of its version; an error when it is not installed.
    pub(crate) fn version(self, elcached: &Path) -> Result<String, String> {
        let (program, flag) = match self {
            Self::Elcache => (elcached.to_path_buf(), "--version"),
            Self::Nginx => ("nginx".into(), "-v"),
            Self::Varnish => ("varnishd".into(), "-V"),
            Self::Redis => ("redis-server".into(), "--version"),
            Self::Memcached => ("memcached".into(), "-V"),
        };
        let output = with_sbin(&program).arg(flag).output().map_err(|_| {
            format!("{} is not there; bench/install.sh installs the peers", program.display())
        })?;
        let said =
            String::from_utf8_lossy(if output.stdout.is_empty() { &output.stderr } else { &output.stdout })
                .into_owned();
        let first = said.lines().next().unwrap_or_default();
        // Redis adds its allocator and build to the line.
        Ok(first.split(" sha=").next().unwrap_or_default().trim().to_owned())
    }

    /// Starts it on a free port with its files in a directory of its own below `scratch`.
    pub(crate) fn start(self, scratch: &Path, elcached: &Path, core: usize) -> Result<Running, String> {
        let directory = scratch.join(self.to_string());
        make_directory(&directory)?;
        let address = free_address()?;
        let backend =
            (self == Self::Varnish).then(|| Self::Nginx.start(&directory, elcached, core)).transpose()?;
        let backend = backend.map(|running| running.server);
        let command = match self {
            Self::Elcache => elcache_command(elcached, address, &directory),
            Self::Nginx => nginx_command(address, &directory)?,
            Self::Varnish => {
                varnish_command(address, backend.as_ref().map(|server| server.address), &directory)
            }
            Self::Redis => redis_command(address, &directory),
            Self::Memcached => memcached_command(address),
        };
        let server = Server::start(&command, address, core, &directory)?;
        Ok(Running { peer: self, server, backend })
    }
}

/// A peer that answers.
pub(crate) struct Running {
    pub(crate) peer: Peer,
    server: Server,
    /// Where Varnish gets its values from. Once its cache is full it asks no more; if it did, that would be its cost.
    backend: Option<Server>,
}

impl Running {
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Where values are put.
    pub(crate) fn fill_address(&self) -> SocketAddr {
        self.backend.as_ref().unwrap_or(&self.server).address
    }

    /// What it wrote last, for the message when it fails.
    pub(crate) fn last_words(&self) -> String {
        self.server.last_words()
    }

    pub(crate) fn cpu_time(&self) -> Duration {
        self.server.cpu_time() + self.backend.as_ref().map_or(Duration::ZERO, Server::cpu_time)
    }
}

/// A command with the directories in its path where Debian has its daemons, which an ordinary user's lacks.
fn with_sbin(program: &Path) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"));
    command
}

fn elcache_command(elcached: &Path, address: SocketAddr, directory: &Path) -> Command {
    let program = fs::canonicalize(elcached).unwrap_or_else(|_| PathBuf::from(elcached));
    let mut command = with_sbin(&program);
    command.args(["-m", "3G", "-D", "0", "-p"]).arg(address.port().to_string());
    command.arg("-u").arg(directory.join("elcache.sock"));
    command.env("ELCACHE__NETWORK__BIND_ADDRESS", address.ip().to_string());
    command
}

fn nginx_command(address: SocketAddr, directory: &Path) -> Result<Command, String> {
    make_directory(&directory.join("files"))?;
    let configuration = directory.join("nginx.conf");
    let text = NGINX_CONFIGURATION
        .replace("@DIR@", &directory.to_string_lossy())
        .replace("@PORT@", &address.port().to_string());
    fs::write(&configuration, text).map_err(|error| format!("{}: {error}", configuration.display()))?;
    let mut command = with_sbin(Path::new("nginx"));
    command.arg("-p").arg(directory).arg("-c").arg(&configuration).args(["-e", "stderr"]);
    Ok(command)
}

/// A day to live: for longer than any run, and in seconds, since it takes "1d" for one second.
fn varnish_command(address: SocketAddr, backend: Option<SocketAddr>, directory: &Path) -> Command {
    let mut command = with_sbin(Path::new("varnishd"));
    command.args([
        "-F",
        "-j",
        "none",
        "-T",
        "none",
        "-s",
        "malloc,3G",
        "-t",
        "86400",
        "-p",
        "timeout_idle=3600",
    ]);
    command.arg("-n").arg(directory.join("working")).arg("-a").arg(address.to_string());
    command.args(backend.map(|backend| format!("-b{backend}")));
    command
}

fn redis_command(address: SocketAddr, directory: &Path) -> Command {
    let mut command = with_sbin(Path::new("redis-server"));
    command
        .args(["--save", "", "--appendonly", "no", "--io-threads", "1", "--bind"])
        .arg(address.ip().to_string());
    command.arg("--port").arg(address.port().to_string()).arg("--dir").arg(directory);
    command
}

fn memcached_command(address: SocketAddr) -> Command {
    let mut command = with_sbin(Path::new("memcached"));
    command.args(["-I", "8m", "-t", "1", "-m", "3000", "-c", "4096", "-U", "0", "-u", "root", "-l"]);
    command.arg(address.ip().to_string()).arg("-p").arg(address.port().to_string());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_takes_part_in_something_and_says_why_not_in_the_rest() {
        let workload = |name: &str| name.parse::<Workload>().unwrap();
        assert!(Peer::ALL.iter().all(|peer| peer.skips(&workload("get-4m")).is_none()));
        assert!(Peer::Varnish.skips(&workload("put-1k")).is_some());
        assert!(Peer::Redis.skips(&workload("range-64k")).is_some());
        assert!(Peer::Elcache.skips(&workload("range-64k")).is_none());
    }

    #[test]
    fn the_nginx_configuration_has_its_places_filled_in() {
        let directory = std::env::temp_dir().join(format!("elcache-bench-test.{}", std::process::id()));
        nginx_command("127.0.0.1:4711".parse().unwrap(), &directory).unwrap();
        let text = fs::read_to_string(directory.join("nginx.conf")).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert!(text.contains("listen 127.0.0.1:4711"));
        assert!(text.lines().filter(|line| !line.starts_with('#')).all(|line| !line.contains('@')));
    }
}
