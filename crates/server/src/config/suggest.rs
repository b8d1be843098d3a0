//! "Did you mean": names close to one that does not exist.

/// Longer names than any of ours are no slip of the finger, and comparing takes the product of the lengths.
const LENGTH_MAX: usize = 80;

/// The candidates that are closest to what was written; failing that, those that share its last part. At most three.
pub(super) fn suggestions<'a>(written: &str, candidates: &[&'a str]) -> Vec<&'a str> {
    if written.len() > LENGTH_MAX {
        return Vec::new();
    }
    let written = written.to_ascii_lowercase();
    let distances = candidates.iter().map(|name| (strsim::osa_distance(&written, name), *name));
    let near: Vec<_> = distances.filter(|(distance, _)| *distance <= 1 + written.len() / 6).collect();
    match near.iter().map(|(distance, _)| *distance).min() {
        Some(least) => near.iter().filter(|(d, _)| *d == least).map(|(_, name)| *name).take(3).collect(),
        None => elsewhere(&written, candidates),
    }
}

fn elsewhere<'a>(written: &str, candidates: &[&'a str]) -> Vec<&'a str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    candidates.iter().copied().filter(|name| last(name) == last(written)).take(3).collect()
}

/// `, did you mean a or b?` to append to a sentence, or nothing.
pub(super) fn did_you_mean(names: &[impl AsRef<str>]) -> String {
    match names {
        [] => String::new(),
        names => {
            let names: Vec<_> = names.iter().map(AsRef::as_ref).collect();
            format!(", did you mean {}?", names.join(" or "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = ["memory.max_size", "memory.high_watermark", "disk.max_size", "log.level"];

    #[test]
    fn slips_of_the_finger_find_their_key() {
        assert_eq!(suggestions("memory.hihg_watermark", &NAMES), ["memory.high_watermark"]);
        assert_eq!(suggestions("MEMORY.MAX_SIZE", &NAMES), ["memory.max_size"]);
    }

    #[test]
    fn a_key_in_the_wrong_section_finds_the_right_ones() {
        assert_eq!(suggestions("cache.max_size", &NAMES), ["memory.max_size", "disk.max_size"]);
        assert_eq!(suggestions("max_size", &NAMES), ["memory.max_size", "disk.max_size"]);
    }

    #[test]
    fn nonsense_finds_nothing() {
        assert!(suggestions("colour", &NAMES).is_empty());
        assert!(suggestions(&"x".repeat(100_000), &NAMES).is_empty());
        assert_eq!(did_you_mean(&["a", "b"]), ", did you mean a or b?");
    }
}
