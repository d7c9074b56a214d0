//! The system's local time, for log stamps and the `time` service.
//!
//! In comes the time zone, read once: from `TZ`, `/etc/localtime` or `/etc/TZ`; out goes the wall clock as civil
//! time. `localtime_r(3)` would take `unsafe`, and the C library's lock for each call. Reading the zone
//! allocates; asking for the time after that neither allocates nor makes a system call beside reading the clock.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tz::timezone::TimeZoneSettings;
use tz::{TimeZone, UtcDateTime};

/// Where zones are kept that `TZ` names, as in `TZ=Europe/Berlin`.
const DIRECTORIES: &[&str] = &["/usr/share/zoneinfo", "/share/zoneinfo", "/etc/zoneinfo"];
/// Bytes of a zone file that are read at most; the largest in use have about 4,000.
const ZONE_FILE: u64 = 65_536;

/// A moment as the calendar and the clock on the wall show it.
///
/// Its `Display` is `2026-11-21 01:38:47.123456`; a precision sets the digits of the fraction, and `{:.0}` leaves
/// it out. `{:#}` is `Nov 21 01:38:47`, as the system log has it (RFC 3164).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LocalTime {
    /// As if the zone were UTC.
    shown: UtcDateTime,
    /// How far the zone is from UTC at this time.
    pub(crate) offset: Offset,
}

/// Seconds that a zone is east of UTC. Its `Display` is `+01:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offset(i32);

/// The time in the system's time zone, as tzset(3) finds it: `TZ` if set, else `/etc/localtime`, else the text in
/// `/etc/TZ`, as boards without zone files have it. What cannot be read or understood means UTC.
///
/// The first call reads the zone, and later changes of it are not noticed; so make one at start, before files
/// can go out of reach.
pub(crate) fn now() -> LocalTime {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    let zone = ZONE.get_or_init(|| {
        let variable = std::env::var_os("TZ");
        zone(variable.as_ref().map(|text| text.to_string_lossy()).as_deref())
    });
    let since = since_1970();
    let seconds = since.as_secs().cast_signed();
    civil(seconds, offset(zone, seconds), since.subsec_nanos())
}

/// What the wall clock shows. A clock before 1970 was never set.
///
/// On a machine of 32 bits the seconds of std may have 32 bits too, and end in 2038: with musl, and with glibc before
/// 2.34. There the kernel is asked, which has had 64 bits for them since 5.1 (clock_gettime64, syscalls(2)).
fn since_1970() -> Duration {
    #[cfg(target_pointer_width = "32")]
    if let Some(since) = kernel_since_1970() {
        return since;
    }
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(target_pointer_width = "32")]
fn kernel_since_1970() -> Option<Duration> {
    // The number of clock_gettime64; MIPS counts its calls from 4,000 on.
    const NUMBER: nix::libc::c_long = if cfg!(target_arch = "mips") { 4_403 } else { 403 };
    let mut time = [0_i64; 2];
    // SAFETY: the kernel writes the seconds and the nanoseconds, 64 bits each.
    let failed = unsafe { nix::libc::syscall(NUMBER, nix::libc::CLOCK_REALTIME, time.as_mut_ptr()) } != 0;
    let seconds = u64::try_from(time[0]).unwrap_or_default();
    (!failed).then(|| Duration::new(seconds, time[1] as u32))
}

fn zone(variable: Option<&str>) -> TimeZone {
    let settings = TimeZoneSettings::new(DIRECTORIES, |path| Ok(read(path)?));
    let zone = match variable {
        // As in POSIX, set but empty is UTC.
        Some(text) => settings.parse_posix_tz(text).ok(),
        None => settings.parse_local().ok().or_else(|| {
            let text = read("/etc/TZ").ok()?;
            settings.parse_posix_tz(std::str::from_utf8(&text).ok()?.trim()).ok()
        }),
    };
    zone.unwrap_or_else(TimeZone::utc)
}

/// Reads a zone file; a pipe or a device would never end.
fn read(path: &str) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(ZONE_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Seconds that a zone is east of UTC at a time. Past the table of a file without a rule for later times, the last
/// entry stays.
fn offset(zone: &TimeZone, seconds: i64) -> Offset {
    let last = || {
        let zone = zone.as_ref();
        zone.local_time_types().get(zone.transitions().last()?.local_time_type_index())
    };
    zone.find_local_time_type(seconds).ok().or_else(last).map_or(Offset(0), |kind| Offset(kind.ut_offset()))
}

/// The date and time in a zone of seconds since 1970-01-01 00:00:00 UTC; the last of the years that 32 bits count for
/// any later one.
fn civil(seconds: i64, offset: Offset, nanos: u32) -> LocalTime {
    let shown = UtcDateTime::from_timespec(seconds.saturating_add(offset.0.into()), nanos);
    LocalTime { shown: shown.unwrap_or(UtcDateTime::MAX), offset }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, minutes) = (if self.0 < 0 { '-' } else { '+' }, self.0.unsigned_abs() / 60);
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
        let time = &self.shown;
        if f.alternate() {
            let month = &MONTHS[usize::from(time.month() - 1) * 3..][..3];
            write!(f, "{month} {:2} ", time.month_day())?;
        } else {
            write!(f, "{:04}-{:02}-{:02} ", time.year(), time.month(), time.month_day())?;
        }
        write!(f, "{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())?;
        match f.precision().unwrap_or(6).min(6) {
            _ if f.alternate() => Ok(()),
            0 => Ok(()),
            digits => write!(f, ".{:0digits$}", time.nanoseconds() / 10_u32.pow(9 - digits as u32)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tz::timezone::{LocalTimeType, Transition};

    fn shown(seconds: i64) -> String {
        format!("{:.0}", civil(seconds, Offset(0), 0))
    }

    #[test]
    fn the_kernel_and_std_show_one_time() {
        let (before, since) = (SystemTime::now(), since_1970());
        let after = SystemTime::now();
        assert!((before..=after).contains(&(UNIX_EPOCH + since)), "{since:?}");
    }

    #[test]
    fn seconds_become_dates() {
        // Each from `date -u -d @SECONDS`.
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (-1, "1969-12-31 23:59:59"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (951_868_800, "2000-03-01 00:00:00"),
            (1_795_225_127, "2026-11-21 01:38:47"),
            (2_147_483_648, "2038-01-19 03:14:08"),
            (4_107_542_399, "2100-02-28 23:59:59"),
            (4_107_542_400, "2100-03-01 00:00:00"),
            (-62_135_596_800, "0001-01-01 00:00:00"),
        ] {
            assert_eq!(shown(seconds), text);
        }
    }

    #[test]
    fn the_precision_sets_the_digits() {
        let time = civil(1_795_225_127, Offset(0), 4_050_999);
        assert_eq!(time.to_string(), "2026-11-21 01:38:47.004050");
        assert_eq!(
            format!("{time:.3} {time:.0} {time:.9}"),
            "2026-11-21 01:38:47.004 2026-11-21 01:38:47 2026-11-21 01:38:47.004050"
        );
        assert_eq!(format!("{time:#} {:#}", civil(0, Offset(0), 0)), "Nov 21 01:38:47 Jan  1 00:00:00");
    }

    #[test]
    fn a_posix_rule_knows_summer_and_winter() {
        let berlin = zone(Some("CET-1CEST,M3.5.0,M10.5.0/3"));
        // The two changes of 2026: 29 March and 25 October, at 01:00 UTC.
        for (seconds, expected) in [
            (1_774_745_999, "2026-03-29 01:59:59"),
            (1_774_746_000, "2026-03-29 03:00:00"),
            (1_792_889_999, "2026-10-25 02:59:59"),
            (1_792_890_000, "2026-10-25 02:00:00"),
        ] {
            assert_eq!(format!("{:.0}", civil(seconds, offset(&berlin, seconds), 0)), expected);
        }
        let nepal = offset(&zone(Some("<+0545>-5:45")), 0);
        assert_eq!((nepal, nepal.to_string()), (Offset(20_700), "+05:45".into()));
        assert_eq!(Offset(-12_600).to_string(), "-03:30");
    }

    #[test]
    fn a_zone_file_is_good_beyond_its_table() {
        assert!(std::fs::exists("/usr/share/zoneinfo/Europe/Berlin").unwrap(), "get it with: apt-get install tzdata");
        for name in ["Europe/Berlin", ":Europe/Berlin", "/usr/share/zoneinfo/Europe/Berlin"] {
            let berlin = zone(Some(name));
            assert_eq!(offset(&berlin, 1_795_225_127), Offset(3_600), "{name}: November 2026");
            assert_eq!(offset(&berlin, 4_118_083_200), Offset(7_200), "{name}: July 2100");
        }
    }

    #[test]
    fn a_table_without_a_rule_ends_with_its_last_entry() {
        let kinds = vec![LocalTimeType::with_ut_offset(0).unwrap(), LocalTimeType::with_ut_offset(3_600).unwrap()];
        let zone = TimeZone::new(vec![Transition::new(100, 1)], kinds, vec![], None).unwrap();
        assert_eq!((offset(&zone, 99), offset(&zone, 100)), (Offset(0), Offset(3_600)));
    }

    #[test]
    fn what_is_no_zone_is_utc() {
        for name in ["", "Middle/Earth", "/dev/zero", "/proc/self/mem", "CET-1CEST,M99", ":", "\u{fffd}"] {
            assert_eq!(offset(&zone(Some(name)), 1_795_225_127), Offset(0), "{name:?}");
        }
    }
}
