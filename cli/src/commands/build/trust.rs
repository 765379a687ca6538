//! `--cache-ttl` and `--verify-cache`: how far the cache is trusted.

use std::time::Duration;

use kiln_solver::StepReport;
use kiln_solver::verify::Percent;

use crate::amount;
use crate::report::Failure;

/// What `--verify-cache` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verify {
    pub(super) percent: Percent,
    /// A step with another result makes the build fail.
    fail: bool,
}

/// How old the results of RUN steps may be.
pub(super) fn ttl(text: Option<&str>) -> Result<Option<Duration>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let duration = amount::duration(text).ok_or_else(|| {
        Failure::usage(format!("--cache-ttl {text}: expected a length of time"))
            .hint("such as 30m, 24h, 7d or 1h30m")
    })?;
    Ok(Some(duration))
}

/// `PERCENT`, `PERCENT,fail` or `fail`.
pub(super) fn verify(text: Option<&str>) -> Result<Option<Verify>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let mut verify = Verify {
        percent: Percent::ALL,
        fail: false,
    };
    for word in text.split(',') {
        let word = word.trim();
        if word == "fail" {
            verify.fail = true;
            continue;
        }
        let number = word.strip_suffix('%').unwrap_or(word).parse::<u8>();
        verify.percent = number.ok().and_then(Percent::new).ok_or_else(|| {
            Failure::usage(format!("--verify-cache={text}: expected a number from 1 to 100"))
                .hint("--verify-cache=10 runs a tenth of the cached steps again; --verify-cache=10,fail fails where one differs")
        })?;
    }
    Ok(Some(verify))
}

/// The failure of a build of which cached results are not what their steps make, if it was asked for.
pub(super) fn failure(verify: Option<Verify>, steps: &[StepReport]) -> Option<Failure> {
    if !verify?.fail {
        return None;
    }
    let is_bad = |step: &&StepReport| {
        let verified = step.verified.as_ref();
        verified.is_some_and(|verified| verified.outcome.is_bad())
    };
    let bad = steps.iter().filter(is_bad).count();
    let steps = match bad {
        0 => return None,
        1 => "1 cached step gives".to_owned(),
        bad => format!("{bad} cached steps give"),
    };
    Some(
        Failure::message(format!("{steps} another result when run again"))
            .hint("nothing was exported; --no-cache-filter STAGE makes the results of a stage anew"),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_taken() {
        let of = |percent, fail| {
            let percent = Percent::new(percent).unwrap();
            Some(Verify { percent, fail })
        };
        let table = [
            (None, None),
            (Some("100"), of(100, false)),
            (Some("10%"), of(10, false)),
            (Some("5,fail"), of(5, true)),
            (Some("fail"), of(100, true)),
        ];
        for (text, expected) in table {
            assert_eq!(verify(text).unwrap(), expected, "{text:?}");
        }
        for text in ["0", "101", "x", "", "-1", "5,failed"] {
            assert!(verify(Some(text)).is_err(), "{text}");
        }
        assert_eq!(ttl(Some("1h30m")).unwrap(), Some(Duration::from_mins(90)));
        assert!(ttl(Some("soon")).is_err() && ttl(None).unwrap().is_none());
    }
}
