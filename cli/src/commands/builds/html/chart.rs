//! The timeline: a row a step, by stages, over one axis of time.

use std::fmt::Write as _;

use kiln_cache::Store;
use kiln_solver::StepReport;
use kiln_solver::why::StepName;

use super::super::{Found, seconds};
use super::{escape, log, step};
use crate::format;
use crate::report::Failure;

/// What the colours mean, in the order in which they are explained.
const LEGEND: [(&str, &str); 6] = [
    ("ran", "ran"),
    ("cached", "cached"),
    ("source", "source"),
    ("failed", "failed"),
    ("canceled", "canceled"),
    ("critical", "critical path"),
];

/// No more parts than this is the axis divided into.
const MOST_TICKS: u64 = 6;

/// What all rows share.
pub(super) struct Scale {
    /// Milliseconds from the left to the right.
    pub(super) total: u64,
    /// The largest layer.
    pub(super) bytes: u64,
}

impl Scale {
    fn of(found: &Found) -> Self {
        let steps = &found.record.steps;
        let ends = steps.iter().map(end);
        Self {
            total: ends.chain([found.record.duration_ms, 1]).max().unwrap_or(1),
            bytes: steps.iter().filter_map(|step| step.bytes).max().unwrap_or(0),
        }
    }

    /// A time as a share of the whole, for a style.
    pub(super) fn percent(&self, milliseconds: u64) -> String {
        percent(milliseconds, self.total)
    }

    /// The time between two ticks: a 1, 2 or 5 with noughts, or a whole part of a minute or an hour.
    fn tick(&self) -> u64 {
        const ROUND: [u64; 27] = [
            1,
            2,
            5,
            10,
            20,
            50,
            100,
            200,
            500,
            1_000,
            2_000,
            5_000,
            10_000,
            20_000,
            30_000,
            60_000,
            120_000,
            300_000,
            600_000,
            1_200_000,
            1_800_000,
            3_600_000,
            7_200_000,
            14_400_000,
            43_200_000,
            86_400_000,
            604_800_000,
        ];
        let fits = |tick: &u64| self.total / *tick <= MOST_TICKS;
        ROUND.into_iter().find(fits).unwrap_or(self.total)
    }
}

/// A part of a whole, without floating point.
pub(super) fn percent(part: u64, whole: u64) -> String {
    let whole = u128::from(whole.max(1));
    let share = u128::from(part).min(whole) * 10_000 / whole;
    format!("{}.{:02}%", share / 100, share % 100)
}

pub(super) fn end(step: &StepReport) -> u64 {
    step.began_ms.saturating_add(step.milliseconds)
}

/// Steps of one stage.
#[derive(Debug, PartialEq, Eq)]
struct Stage<'a> {
    /// Empty for what belongs to none, and for a stage of a Dockerfile with one.
    name: &'a str,
    /// Positions in the build, in order.
    steps: Vec<usize>,
}

/// The stages, each whole, in the order in which they are done; first what belongs to none.
fn stages(steps: &[StepReport]) -> Vec<Stage<'_>> {
    let mut stages: Vec<Stage<'_>> = Vec::new();
    for (at, one) in steps.iter().enumerate() {
        let name = StepName::of(&one.name).map_or("", |name| name.stage);
        match stages.iter_mut().find(|stage| stage.name == name) {
            Some(stage) => stage.steps.push(at),
            None => stages.push(Stage {
                name,
                steps: vec![at],
            }),
        }
    }
    stages.sort_by_key(|stage| (!stage.name.is_empty(), stage.steps.last().copied()));
    stages
}

/// Writes all of it.
pub(super) fn write(
    page: &mut String,
    store: &Store,
    found: &Found,
    critical: &[usize],
) -> Result<(), Failure> {
    let steps = &found.record.steps;
    if steps.is_empty() {
        page.push_str("<p class=\"sub\">The build did not come to its steps.</p>\n");
        return Ok(());
    }
    let scale = Scale::of(found);
    axis(page, &scale);
    let mut logs = log::Logs::new(store, found);
    let stages = stages(steps);
    let named = stages.iter().filter(|stage| !stage.name.is_empty()).count() > 1;
    for stage in &stages {
        if named && !stage.name.is_empty() {
            heading(page, stage, steps, &scale);
        }
        for at in &stage.steps {
            let Some(one) = steps.get(*at) else { continue };
            step::row(page, *at, one, &scale, critical.contains(at));
            step::details(page, found, one);
            logs.write(page, *at, one)?;
            page.push_str("</div>\n</details>\n");
        }
    }
    page.push_str("</div>\n");
    Ok(())
}

fn axis(page: &mut String, scale: &Scale) {
    page.push_str("<h2>Timeline</h2>\n<div class=\"legend\">");
    for (class, what) in LEGEND {
        let _ = write!(page, "<span><i class=\"key {class}\"></i>{what}</span>");
    }
    let tick = scale.tick();
    let _ = write!(
        page,
        "</div>\n<div class=\"chart\" style=\"--tick:{}\">\n<div class=\"row axis\"><div class=\"track\">",
        scale.percent(tick)
    );
    for at in 0..=scale.total / tick {
        let _ = write!(
            page,
            "<span style=\"left:{}\">{}</span>",
            scale.percent(at * tick),
            tick_text(at * tick, tick)
        );
    }
    page.push_str("</div></div>\n");
}

/// A time on the axis, with as many digits as the distance between two needs.
fn tick_text(milliseconds: u64, tick: u64) -> String {
    match (milliseconds, tick) {
        (0, _) => "0".to_owned(),
        (_, ..100) => format!("{milliseconds}ms"),
        (_, 100..1_000) => format!("{}.{}s", milliseconds / 1000, milliseconds / 100 % 10),
        (_, 1_000..60_000) if milliseconds < 60_000 => format!("{}s", milliseconds / 1000),
        (_, 1_000..60_000) => format!("{}:{:02}", milliseconds / 60_000, milliseconds / 1000 % 60),
        (_, 60_000..3_600_000) => format!("{}m", milliseconds / 60_000),
        _ => format!("{}h", milliseconds / 3_600_000),
    }
}

/// A stage's name, how much of it was cached, and from when to when it was worked on.
fn heading(page: &mut String, stage: &Stage<'_>, steps: &[StepReport], scale: &Scale) {
    let of_stage = || stage.steps.iter().filter_map(|at| steps.get(*at));
    let counted = || of_stage().filter(|one| super::super::is_step(one));
    let cached = counted().filter(|one| step::class(one) == "cached").count();
    let worked = || of_stage().filter(|one| one.milliseconds > 0);
    let from = worked().map(|one| one.began_ms).min().unwrap_or(0);
    let to = worked().map(end).max().unwrap_or(0);
    let made: u64 = of_stage()
        .filter(|one| one.is_miss())
        .filter_map(|one| one.bytes)
        .sum();
    let share = match (cached, counted().count()) {
        (_, 0) => String::new(),
        (0, _) => "nothing cached".to_owned(),
        (cached, all) if cached == all => "all cached".to_owned(),
        (cached, all) => format!("{cached} of {all} cached"),
    };
    let _ = writeln!(
        page,
        "<div class=\"row stage\"><span class=\"n\"></span><span class=\"name\">{name}<small>{share}</small></span>\
         <div class=\"track\"><div class=\"span\" style=\"left:{left};width:{width}\"></div></div>\
         <span class=\"time\">{time}</span><span class=\"size\">{size}</span></div>",
        name = escape(stage.name),
        left = scale.percent(from),
        width = scale.percent(to.saturating_sub(from)),
        time = if to > from {
            seconds(to - from)
        } else {
            String::new()
        },
        size = if made > 0 {
            format::size(made)
        } else {
            String::new()
        },
    );
}

#[cfg(test)]
mod tests {
    use super::super::super::path::tests::step;
    use super::{Scale, percent, stages, tick_text};

    #[test]
    fn ticks_are_round_and_few() {
        let table = [
            (1, 1, "1ms"),
            (97, 20, "80ms"),
            (328, 50, "300ms"),
            (1_622, 500, "1.5s"),
            (20_200, 5_000, "20s"),
            (100_000, 20_000, "1:40"),
            (3_000_000, 600_000, "50m"),
            (30_000_000, 7_200_000, "8h"),
        ];
        for (total, tick, last) in table {
            let scale = Scale { total, bytes: 0 };
            assert_eq!(scale.tick(), tick, "{total}");
            assert_eq!(tick_text(total / tick * tick, tick), last, "{total}");
        }
        assert_eq!(percent(1, 3), "33.33%");
        assert_eq!(percent(5, 3), "100.00%");
        assert_eq!(percent(u64::MAX, u64::MAX), "100.00%");
        assert_eq!(percent(0, 0), "0.00%");
    }

    #[test]
    fn stages_are_whole_and_in_order() {
        let steps = [
            step("[a 1/2] FROM x", 0, 0, &[]),
            step("[last 1/3] COPY --from=a", 0, 0, &[]),
            step("[b 1/2] RUN y", 0, 0, &[]),
            step("[internal] load build context", 0, 0, &[]),
            step("[last 3/3] RUN z", 0, 0, &[]),
        ];
        let found: Vec<(&str, Vec<usize>)> = stages(&steps)
            .into_iter()
            .map(|stage| (stage.name, stage.steps))
            .collect();
        assert_eq!(
            found,
            [
                ("", vec![3]),
                ("a", vec![0]),
                ("b", vec![2]),
                ("last", vec![1, 4])
            ]
        );
    }
}
