//! `HEALTHCHECK`: how a container's health is probed. The last one wins.
//!
//! A shell form stays text: the shell is chosen when the probe runs.

use std::time::Duration;

use kiln_image::Healthcheck as Config;
use kiln_parser::Spanned;
use kiln_parser::ast::{CommandLine, Healthcheck, Probe};

use crate::history::{duration, quote_number, quoted_list};
use crate::state::StageState;

pub(super) fn lower(healthcheck: &Healthcheck, stage: &mut StageState) {
    let config = match healthcheck {
        Healthcheck::None => Config {
            test: vec!["NONE".to_owned()],
            ..Config::default()
        },
        Healthcheck::Probe(probe) => config(probe),
    };
    stage.record(created_by(healthcheck, &config));
    stage.config.config.healthcheck = Some(config);
}

fn config(probe: &Probe) -> Config {
    let test = match &probe.command {
        CommandLine::Shell(text) => vec!["CMD-SHELL".to_owned(), text.as_str().to_owned()],
        CommandLine::Exec(words) => {
            let words = words.iter().map(|word| word.value.clone());
            std::iter::once("CMD".to_owned()).chain(words).collect()
        }
    };
    Config {
        test,
        interval: nanoseconds(probe.interval.as_ref()),
        timeout: nanoseconds(probe.timeout.as_ref()),
        start_period: nanoseconds(probe.start_period.as_ref()),
        start_interval: nanoseconds(probe.start_interval.as_ref()),
        retries: probe
            .retries
            .as_ref()
            .map_or(0, |retries| i64::from(retries.value)),
        ..Config::default()
    }
}

/// Absent is zero, which means inherited. Docker's durations end at 292 years.
fn nanoseconds(duration: Option<&Spanned<Duration>>) -> i64 {
    duration.map_or(0, |duration| {
        i64::try_from(duration.value.as_nanos()).unwrap_or(i64::MAX)
    })
}

/// Docker prints its structure with Go's `%q`, so that even the number of retries is a quoted character.
fn created_by(healthcheck: &Healthcheck, config: &Config) -> String {
    let (probe, retries) = match healthcheck {
        Healthcheck::None => (None, 0),
        Healthcheck::Probe(probe) => (
            Some(probe),
            probe.retries.as_ref().map_or(0, |retries| retries.value),
        ),
    };
    let durations: [Option<&Spanned<Duration>>; 4] = match probe {
        None => [None; 4],
        Some(probe) => [
            probe.interval.as_ref(),
            probe.timeout.as_ref(),
            probe.start_period.as_ref(),
            probe.start_interval.as_ref(),
        ],
    };
    let durations = durations.map(|value| {
        format!(
            "\"{}\"",
            duration(value.map_or(Duration::ZERO, |value| value.value))
        )
    });
    format!(
        "HEALTHCHECK &{{{} {} {}}}",
        quoted_list(&config.test),
        durations.join(" "),
        quote_number(retries)
    )
}

#[cfg(test)]
mod tests {
    use crate::testing::{history, lowered};

    #[test]
    fn the_shell_form_stays_text() {
        let text = "FROM busybox\nHEALTHCHECK --interval=5s --timeout=1m30s --retries=3 CMD echo ok $A\n";
        let lowered = lowered(text);
        let check = lowered.config.config.healthcheck.clone().unwrap();
        assert_eq!(check.test, ["CMD-SHELL", "echo ok $A"]);
        assert_eq!(
            (check.interval, check.timeout, check.retries),
            (5_000_000_000, 90_000_000_000, 3)
        );
        // Docker prints this.
        let expected =
            "- HEALTHCHECK &{[\"CMD-SHELL\" \"echo ok $A\"] \"5s\" \"1m30s\" \"0s\" \"0s\" '\\x03'}";
        assert_eq!(history(&lowered), [expected]);
    }

    #[test]
    fn the_exec_form_and_none() {
        let lowered = lowered("FROM busybox\nHEALTHCHECK CMD [\"a\", \"b\"]\nHEALTHCHECK NONE\n");
        assert_eq!(lowered.config.config.healthcheck.clone().unwrap().test, ["NONE"]);
        // Docker prints this.
        let expected = [
            "- HEALTHCHECK &{[\"CMD\" \"a\" \"b\"] \"0s\" \"0s\" \"0s\" \"0s\" '\\x00'}",
            "- HEALTHCHECK &{[\"NONE\"] \"0s\" \"0s\" \"0s\" \"0s\" '\\x00'}",
        ];
        assert_eq!(history(&lowered), expected);
    }
}
