//! The maintenance window: hours and days in one time zone. The server says what the clock on the wall shows there, so that daylight
//! saving is its business: an hour that is left out in spring is no window that night, one that comes twice in autumn is one twice.

use super::{Config, Facts, Finding, pass, wait};

const MINUTES_OF_DAY: u32 = 24 * 60;
const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// When actions may be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Minutes after midnight.
    start: u32,
    /// Minutes after midnight, excluded. Not after `start`: the window crosses midnight.
    end: u32,
    /// Days on which it begins, Monday first.
    days: [bool; 7],
}

/// What the clock on the wall shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LocalTime {
    /// 1 is Monday, 7 is Sunday.
    pub day: u32,
    /// Minutes after midnight.
    pub minute: u32,
}

impl Window {
    /// From the settings; `None` where nothing restricts anything. A part that is empty or no such thing restricts nothing: the server
    /// refuses such settings before.
    pub fn new(start: &str, end: &str, days: &str) -> Option<Self> {
        let window = Window {
            start: parse_time(start).unwrap_or(0) % MINUTES_OF_DAY,
            end: parse_time(end).unwrap_or(MINUTES_OF_DAY),
            days: parse_days(days).unwrap_or([true; 7]),
        };
        let whole_day = window.start == window.end % MINUTES_OF_DAY;
        (!whole_day || window.days.contains(&false)).then_some(window)
    }

    /// It is open at that time.
    pub fn open(&self, at: LocalTime) -> bool {
        let today = (at.day.clamp(1, 7) - 1) as usize;
        let yesterday = (today + 6) % 7;
        let (start, end) = (self.start, self.end);
        if start < end {
            return self.days[today] && (start..end).contains(&at.minute);
        }
        // Across midnight: what is left of it in the morning belongs to the day on which it began.
        (self.days[today] && at.minute >= start) || (self.days[yesterday] && at.minute < end)
    }
}

impl std::fmt::Display for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", clock(self.start), clock(self.end))?;
        if self.days.contains(&false) {
            let names: Vec<&str> = NAMES.iter().zip(self.days).filter(|(_, on)| *on).map(|(name, _)| *name).collect();
            write!(f, " on {}", names.join(", "))?;
        }
        Ok(())
    }
}

fn clock(minute: u32) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

/// Minutes after midnight of `22:30` or `6:00`; `24:00` is the end of the day. `None` for anything else.
pub fn parse_time(text: &str) -> Option<u32> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let digits = |t: &str| (1..=2).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_digit());
    let number = |t: &str| digits(t).then_some(t)?.parse::<u32>().ok();
    let minutes = number(minutes).filter(|m| *m < 60)?;
    let all = number(hours)? * 60 + minutes;
    (all <= MINUTES_OF_DAY).then_some(all)
}

/// Days from `mon, tue` and `sat-mon`; `None` for anything else, and for no day at all.
pub fn parse_days(text: &str) -> Option<[bool; 7]> {
    let day = |name: &str| NAMES.iter().position(|n| n.eq_ignore_ascii_case(name.trim()));
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (day(first)?, day(last)?),
            None => (day(part)?, day(part)?),
        };
        let mut at = first;
        days[at] = true;
        while at != last {
            at = (at + 1) % 7;
            days[at] = true;
        }
    }
    Some(days)
}

/// Only within `indexpilot.guard_window_*`. What takes an action back does not wait: harm must not last until the night.
pub(super) fn window(facts: &Facts, config: &Config) -> Finding {
    let rule = "window";
    let Some(window) = &config.window else { return pass(rule, "there is no maintenance window") };
    if facts.reverts {
        return pass(rule, format!("it takes something back, which the maintenance window {window} leaves out"));
    }
    let Some(now) = facts.local_time else {
        return wait(rule, format!("the local time is not known, and the maintenance window is {window}"));
    };
    let day = NAMES[(now.day.clamp(1, 7) - 1) as usize];
    let detail = format!("it is {day} {}, the maintenance window is {window}", clock(now.minute));
    match window.open(now) {
        true => pass(rule, detail),
        false => wait(rule, detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(day: u32, hour: u32, minute: u32) -> LocalTime {
        LocalTime { day, minute: hour * 60 + minute }
    }

    #[test]
    fn times_and_days_are_read() {
        for (text, minutes) in [("00:00", 0), ("6:05", 365), (" 22:30 ", 1350), ("24:00", 1440)] {
            assert_eq!(parse_time(text), Some(minutes), "{text}");
        }
        for text in ["", "22", "24:01", "12:60", "a:b", "1:2:3", "-1:00", "+1:00", "001:00"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
        assert_eq!(parse_days("Mon, wed"), Some([true, false, true, false, false, false, false]));
        assert_eq!(parse_days("sat-mon"), Some([true, false, false, false, false, true, true]));
        for text in ["", "mo", "mon,", "mon-", "mon-tue-wed", "1"] {
            assert_eq!(parse_days(text), None, "{text}");
        }
    }

    #[test]
    fn nothing_set_restricts_nothing() {
        assert_eq!(Window::new("", "", ""), None);
        assert_eq!(Window::new("00:00", "24:00", ""), None);
        assert_eq!(Window::new("05:00", "05:00", "mon-sun"), None);
        assert!(Window::new("", "", "mon").is_some());
        assert!(Window::new("22:00", "", "").is_some());
    }

    #[test]
    fn a_window_within_a_day() {
        let w = Window::new("02:00", "04:30", "tue").unwrap();
        for (time, open) in
            [(at(2, 1, 59), false), (at(2, 2, 0), true), (at(2, 4, 29), true), (at(2, 4, 30), false), (at(3, 3, 0), false)]
        {
            assert_eq!(w.open(time), open, "{time:?}");
        }
        assert_eq!(w.to_string(), "02:00 to 04:30 on tue");
    }

    #[test]
    fn a_window_across_midnight_belongs_to_the_day_on_which_it_begins() {
        let w = Window::new("22:00", "06:00", "fri").unwrap();
        for (time, open) in [
            (at(5, 21, 59), false),
            (at(5, 22, 0), true),
            (at(6, 5, 59), true),
            (at(6, 6, 0), false),
            (at(5, 3, 0), false),
            (at(6, 23, 0), false),
        ] {
            assert_eq!(w.open(time), open, "{time:?}");
        }
        // Sunday night reaches into Monday.
        assert!(Window::new("22:00", "06:00", "sun").unwrap().open(at(1, 1, 0)));
        // Days alone: the whole day.
        let saturday = Window::new("", "", "sat").unwrap();
        assert!(saturday.open(at(6, 0, 0)) && saturday.open(at(6, 23, 59)) && !saturday.open(at(7, 0, 0)));
        // Equal ends: all day round, from that hour on.
        let from_six = Window::new("06:00", "06:00", "sat").unwrap();
        assert!(from_six.open(at(6, 6, 0)) && from_six.open(at(7, 5, 59)) && !from_six.open(at(6, 5, 59)));
    }

    proptest! {
        /// Over a week, a window is open for its length times its days.
        #[test]
        fn a_week_has_the_hours_that_were_asked_for(start in 0u32..1440, end in 1u32..=1440, days in prop::array::uniform7(any::<bool>())) {
            let names: Vec<&str> = NAMES.iter().zip(days).filter(|(_, on)| *on).map(|(n, _)| *n).collect();
            prop_assume!(!names.is_empty());
            let length = match end > start { true => end - start, false => 1440 - start + end };
            let minutes = match Window::new(&clock(start), &clock(end), &names.join(",")) {
                None => 7 * 1440,
                Some(w) => (1..=7).flat_map(|day| (0..1440).map(move |minute| LocalTime { day, minute })).filter(|t| w.open(*t)).count() as u32,
            };
            prop_assert_eq!(minutes, length * names.len() as u32);
        }
    }
}
