//! What the kernel says of this process (proc(5)). What cannot be read is left out of the page.

use std::fs;

/// One reading of `/proc`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Process {
    pub(crate) stat: Option<Stat>,
    pub(crate) start_time_seconds: Option<f64>,
    pub(crate) open_fds: Option<u64>,
    /// Infinite where there is no limit.
    pub(crate) max_fds: Option<f64>,
}

/// The fields of `/proc/self/stat` that are exposed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stat {
    pub(crate) cpu_seconds: f64,
    pub(crate) threads: u64,
    /// After the machine's start.
    pub(crate) started_seconds: f64,
    pub(crate) virtual_bytes: u64,
    pub(crate) resident_bytes: u64,
}

impl Process {
    pub(crate) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).ok();
        // The program's name may be any bytes.
        let stat = fs::read("/proc/self/stat").ok().and_then(|bytes| {
            let ticks = rustix::param::clock_ticks_per_second() as f64;
            parse_stat(&String::from_utf8_lossy(&bytes), ticks, rustix::param::page_size() as u64)
        });
        let boot_seconds = text("/proc/stat").as_deref().and_then(parse_boot_time);
        Self {
            stat,
            start_time_seconds: stat.zip(boot_seconds).map(|(stat, boot)| boot as f64 + stat.started_seconds),
            open_fds: count_fds(),
            max_fds: text("/proc/self/limits").as_deref().and_then(parse_max_fds),
        }
    }
}

fn parse_stat(line: &str, ticks_per_second: f64, page_bytes: u64) -> Option<Stat> {
    // Field 2 is the program's name in parentheses, which may itself hold spaces and parentheses.
    let (_, rest) = line.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| -> Option<u64> { fields.get(number.checked_sub(3)?)?.parse().ok() };
    Some(Stat {
        cpu_seconds: (field(14)? as f64 + field(15)? as f64) / ticks_per_second,
        threads: field(20)?,
        started_seconds: field(22)? as f64 / ticks_per_second,
        virtual_bytes: field(23)?,
        resident_bytes: field(24)?.checked_mul(page_bytes)?,
    })
}

fn parse_boot_time(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn parse_max_fds(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        soft => soft.parse::<u64>().ok().map(|soft| soft as f64),
    }
}

fn count_fds() -> Option<u64> {
    const PATH: &str = "/proc/self/fd";
    // Since Linux 6.2 the directory's size is the number of descriptors; before, it is 0.
    match fs::metadata(PATH).ok()?.len() {
        // Reading the directory opens one that is gone afterwards.
        0 => Some((fs::read_dir(PATH).ok()?.count() as u64).saturating_sub(1)),
        descriptors => Some(descriptors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat_is_read_whatever_the_program_is_called() {
        let line = "42 (a) b (c) R 1 1 1 0 -1 4194304 101 0 0 0 250 50 0 0 20 0 7 0 1234 4096000 383 18446744073709551615";
        let expected = Stat {
            cpu_seconds: 3.0,
            threads: 7,
            started_seconds: 12.34,
            virtual_bytes: 4_096_000,
            resident_bytes: 383 * 4096,
        };
        assert_eq!(parse_stat(line, 100.0, 4096), Some(expected));
    }

    #[test]
    fn what_is_cut_off_or_makes_no_sense_is_left_out() {
        for line in
            ["", "42 (a", "42 (a) ", "42 (a) R 1 2 3", "42 (a) R x x x x x x x x x x x x x x x x x x x x x x"]
        {
            assert_eq!(parse_stat(line, 100.0, 4096), None, "{line}");
        }
        assert_eq!(parse_boot_time("cpu 1 2\nbtime x\n"), None);
        assert_eq!(parse_max_fds("Max open files            \n"), None);
    }

    #[test]
    fn limits_are_the_soft_ones() {
        let page = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024    4096   files\n";
        assert_eq!(parse_max_fds(page), Some(1024.0));
        assert_eq!(parse_max_fds("Max open files  unlimited  unlimited  files"), Some(f64::INFINITY));
        assert_eq!(parse_boot_time("cpu 1 2\nbtime 1700000000\nprocesses 1\n"), Some(1_700_000_000));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_read_in_full() {
        let process = Process::read();
        let stat = process.stat.expect("/proc/self/stat");
        assert!(stat.threads >= 1 && stat.resident_bytes > 0 && stat.virtual_bytes >= stat.resident_bytes);
        assert!(process.start_time_seconds.expect("a start") > 1e9);
        let open = process.open_fds.expect("descriptors");
        assert!(open >= 1 && open as f64 <= process.max_fds.expect("a limit"));
    }
}
