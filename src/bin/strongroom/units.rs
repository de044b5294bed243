//! Durations, times and sizes as people write them: `24h`, `90s`, `1d 12h`; `2027-01-31T12:00:00Z`, `@1801396800`;
//! `64MiB`, `50M`, `4096`.

use std::time::{Duration, SystemTime};

use parse_size::Config;

/// A duration: numbers with their units.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}: try 90s, 24h or 7d"))
}

/// A time of the wall clock: in RFC 3339, in UTC, or `@` and seconds since 1970, as `date -d` reads it.
pub fn time(text: &str) -> Result<SystemTime, String> {
    let time = match text.strip_prefix('@') {
        None => humantime::parse_rfc3339(text).map_err(|error| error.to_string()),
        Some(seconds) => seconds.parse().map_err(|error| format!("{error}")).and_then(|seconds| {
            let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
            time.ok_or_else(|| "it is too far ahead".to_owned())
        }),
    };
    time.map_err(|problem| format!("{problem}: try 2027-01-31T12:00:00Z, in UTC, or @ and seconds since 1970"))
}

/// A number of bytes. K, M and G are powers of 1024, with or without `iB` behind them.
pub fn bytes(text: &str) -> Result<u64, String> {
    let parsed = Config::new().with_binary().parse_size(text);
    parsed.map_err(|error| format!("{error}: try 50M, 64MiB or a number of bytes"))
}

/// How many bytes a second.
pub fn rate(text: &str) -> Result<u64, String> {
    match bytes(text)? {
        0 => Err("at 0 bytes a second it would never end: try 50M".to_owned()),
        bytes => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_rfc_3339_and_in_seconds() {
        for text in ["2027-01-31T12:00:00Z", "2027-01-31T12:00:00.000Z", "@1801396800"] {
            assert_eq!(time(text), Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(1_801_396_800)), "{text}");
        }
        for bad in ["", "@", "@-1", "@1.5", "@18446744073709551615", "1801396800", "tomorrow", "2027-02-30T12:00:00Z"] {
            let problem = time(bad).unwrap_err();
            assert!(problem.ends_with("seconds since 1970"), "{bad}: {problem}");
        }
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in
            [("90s", 90), ("24h", 86_400), ("1d", 86_400), ("5min", 300), ("1h 30m", 5400), ("0s", 0), ("0", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "soon", "90", "-1s", "1.5.5h", "1x", "99999999999999999999s", "20000000000000000000h"] {
            let problem = duration(bad).unwrap_err();
            assert!(problem.ends_with("try 90s, 24h or 7d"), "{bad}: {problem}");
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, expected) in [
            ("0", 0),
            ("4096", 4096),
            ("4K", 4 << 10),
            ("50M", 50 << 20),
            ("64MiB", 64 << 20),
            ("64 MiB", 64 << 20),
            ("64m", 64 << 20),
            ("1.5G", 3 << 29),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for bad in ["", "fast", "-1", "M", "5X", "5MM", "1e99", "99999999999999999999", "17179869184G"] {
            let problem = bytes(bad).unwrap_err();
            assert!(problem.ends_with("try 50M, 64MiB or a number of bytes"), "{bad}: {problem}");
        }
        assert!(rate("0").is_err() && rate("0M").is_err());
        assert_eq!(rate("1K"), Ok(1024));
    }
}
