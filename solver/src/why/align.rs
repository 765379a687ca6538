//! Which step of an earlier build is which step of this one.
//!
//! Within a stage, steps of the same text are the same, in order as far as possible; between those, steps of the same
//! instruction pair up. A stage is found by its name; what has none of its name pairs up in order.

use std::collections::{BTreeMap, BTreeSet};

use crate::report::StepReport;

/// Above so many pairs of steps only the equal beginnings and ends of a stage are used.
const MOST_PAIRS: usize = 4_000_000;

/// A step's name in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepName<'a> {
    /// The stage; empty where a Dockerfile has one without a name.
    pub stage: &'a str,
    /// Which of the stage's steps: `2/4`.
    pub position: &'a str,
    /// The instruction.
    pub text: &'a str,
}

impl<'a> StepName<'a> {
    /// `[build 2/4] RUN make` in pieces; `None` for what is no step of a stage.
    pub fn of(name: &'a str) -> Option<Self> {
        let (bracket, text) = name.strip_prefix('[')?.split_once("] ")?;
        let (stage, position) = bracket.rsplit_once(' ').unwrap_or(("", bracket));
        // Numbers are padded to one width.
        let stage = stage.trim_end_matches(' ');
        let (number, total) = position.split_once('/')?;
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        (is_number(number) && is_number(total)).then_some(Self {
            stage,
            position,
            text,
        })
    }
}

fn keyword(text: &str) -> &str {
    text.split(' ').next().unwrap_or(text)
}

/// A stage's name, and its steps by their positions in the build.
type Stage<'a> = (&'a str, Vec<(usize, &'a str)>);

/// The stages in order.
fn stages(steps: &[StepReport]) -> Vec<Stage<'_>> {
    let mut stages: Vec<Stage<'_>> = Vec::new();
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, step) in steps.iter().enumerate() {
        let Some(StepName { stage, text, .. }) = StepName::of(&step.name) else {
            continue;
        };
        let index = *known.entry(stage).or_insert_with(|| {
            stages.push((stage, Vec::new()));
            stages.len() - 1
        });
        if let Some((_, steps)) = stages.get_mut(index) {
            steps.push((at, text));
        }
    }
    stages
}

/// For each step of `now`, where it is in `earlier`.
pub(super) fn align(now: &[StepReport], earlier: &[StepReport]) -> Vec<Option<usize>> {
    let mut found = vec![None; now.len()];
    let mut old: Vec<Option<Stage<'_>>> = stages(earlier).into_iter().map(Some).collect();
    let mut unnamed = Vec::new();
    for (stage, steps) in stages(now) {
        let same = old
            .iter_mut()
            .find(|old| old.as_ref().is_some_and(|(name, _)| *name == stage));
        match same.and_then(Option::take) {
            Some((_, old)) => align_stage(&steps, &old, &mut found),
            None => unnamed.push(steps),
        }
    }
    for (steps, (_, old)) in unnamed.iter().zip(old.into_iter().flatten()) {
        align_stage(steps, &old, &mut found);
    }
    align_others(now, earlier, &mut found);
    found
}

/// What is no step of a stage (a context, a download) is the same under the same name.
fn align_others(now: &[StepReport], earlier: &[StepReport], found: &mut [Option<usize>]) {
    let others = |steps: &[StepReport]| -> Vec<usize> {
        let outside = |at: &usize| StepName::of(&steps[*at].name).is_none();
        (0..steps.len()).filter(outside).collect()
    };
    let mut old = others(earlier);
    for at in others(now) {
        if let Some(index) = old.iter().position(|old| earlier[*old].name == now[at].name) {
            found[at] = Some(old.remove(index));
        }
    }
}

fn align_stage(now: &[(usize, &str)], old: &[(usize, &str)], found: &mut [Option<usize>]) {
    let equal = |a: &(usize, &str), b: &(usize, &str)| a.1 == b.1;
    let start = now.iter().zip(old).take_while(|(a, b)| equal(a, b)).count();
    let (now_rest, old_rest) = (&now[start..], &old[start..]);
    let end = now_rest
        .iter()
        .rev()
        .zip(old_rest.iter().rev())
        .take_while(|(a, b)| equal(a, b))
        .count();
    let (now_middle, now_end) = now_rest.split_at(now_rest.len() - end);
    let (old_middle, old_end) = old_rest.split_at(old_rest.len() - end);
    let same = now[..start].iter().zip(old).chain(now_end.iter().zip(old_end));
    for (a, b) in same {
        found[a.0] = Some(b.0);
    }
    let anchors = common(now_middle, old_middle);
    for (a, b) in &anchors {
        found[now_middle[*a].0] = Some(old_middle[*b].0);
    }
    let mut taken: BTreeSet<usize> = anchors.iter().map(|(_, b)| old_middle[*b].0).collect();
    pair_up(now_middle, old_middle, equal, &mut taken, found);
    // Between steps of equal texts in the same order, those of the same instruction.
    let same_instruction = |a: &(usize, &str), b: &(usize, &str)| keyword(a.1) == keyword(b.1);
    let (mut a, mut b) = (0, 0);
    for (next_a, next_b) in anchors.into_iter().chain([(now_middle.len(), old_middle.len())]) {
        let (now, old) = (&now_middle[a..next_a], &old_middle[b..next_b]);
        pair_up(now, old, same_instruction, &mut taken, found);
        (a, b) = (next_a + 1, next_b + 1);
    }
}

/// Pairs each step of `now` that has none with the first of `old` that is the `same` and not taken.
fn pair_up(
    now: &[(usize, &str)],
    old: &[(usize, &str)],
    same: impl Fn(&(usize, &str), &(usize, &str)) -> bool,
    taken: &mut BTreeSet<usize>,
    found: &mut [Option<usize>],
) {
    for step in now {
        if found[step.0].is_some() {
            continue;
        }
        let fits = |old: &&(usize, &str)| !taken.contains(&old.0) && same(step, old);
        if let Some((at, _)) = old.iter().find(fits) {
            taken.insert(*at);
            found[step.0] = Some(*at);
        }
    }
}

/// The longest common subsequence of texts, as pairs of positions.
fn common(now: &[(usize, &str)], old: &[(usize, &str)]) -> Vec<(usize, usize)> {
    if now.len().saturating_mul(old.len()) > MOST_PAIRS {
        return Vec::new();
    }
    let width = old.len() + 1;
    let mut lengths = vec![0_u32; (now.len() + 1) * width];
    for a in (0..now.len()).rev() {
        for b in (0..old.len()).rev() {
            lengths[a * width + b] = if now[a].1 == old[b].1 {
                lengths[(a + 1) * width + b + 1] + 1
            } else {
                lengths[(a + 1) * width + b].max(lengths[a * width + b + 1])
            };
        }
    }
    let mut pairs = Vec::new();
    let (mut a, mut b) = (0, 0);
    while a < now.len() && b < old.len() {
        if now[a].1 == old[b].1 {
            pairs.push((a, b));
            (a, b) = (a + 1, b + 1);
        } else if lengths[(a + 1) * width + b] >= lengths[a * width + b + 1] {
            a += 1;
        } else {
            b += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::{StepName, align};
    use crate::why::tests::step;

    #[test]
    fn names_have_pieces() {
        let table = [
            ("[build 2/4] RUN make", Some(("build", "2/4", "RUN make"))),
            ("[2/4] COPY . .", Some(("", "2/4", "COPY . ."))),
            (
                "[linux/arm64 a 2/4] COPY [1/2] .",
                Some(("linux/arm64 a", "2/4", "COPY [1/2] .")),
            ),
            ("[build  2/10] RUN x", Some(("build", "2/10", "RUN x"))),
            ("[ 2/10] RUN x", Some(("", "2/10", "RUN x"))),
            ("[build 2/4] RUN a] b", Some(("build", "2/4", "RUN a] b"))),
            ("[internal] load build context", None),
            ("https://x/y", None),
        ];
        for (name, expected) in table {
            let found = StepName::of(name).map(|name| (name.stage, name.position, name.text));
            assert_eq!(found, expected, "{name}");
        }
    }

    /// The steps of this build, those of the earlier one, and where each is.
    type Row = (
        &'static [&'static str],
        &'static [&'static str],
        &'static [Option<usize>],
    );

    #[test]
    fn steps_find_themselves() {
        let table: &[Row] = &[
            (
                &["[1/2] FROM a", "[2/2] RUN x"],
                &["[1/2] FROM a", "[2/2] RUN x"],
                &[Some(0), Some(1)],
            ),
            // One is new, one has another text.
            (
                &["[1/4] FROM a", "[2/4] RUN new", "[3/4] COPY a b", "[4/4] RUN y2"],
                &["[1/3] FROM a", "[2/3] COPY a b", "[3/3] RUN y"],
                &[Some(0), None, Some(1), Some(2)],
            ),
            (&["[1/1] FROM b"], &["[1/1] FROM a"], &[Some(0)]),
            (
                &["[1/2] FROM a", "[2/2] RUN x"],
                &["[1/2] FROM a", "[2/2] COPY x y"],
                &[Some(0), None],
            ),
            // Another order: each finds itself, whatever is between.
            (
                &["[1/4] FROM a", "[2/4] COPY c", "[3/4] COPY d", "[4/4] COPY b"],
                &["[1/4] FROM a", "[2/4] COPY b", "[3/4] COPY c", "[4/4] COPY d"],
                &[Some(0), Some(2), Some(3), Some(1)],
            ),
            (
                &["[1/3] FROM a", "[2/3] COPY c", "[3/3] COPY b"],
                &["[1/3] FROM a", "[2/3] COPY b", "[3/3] COPY c"],
                &[Some(0), Some(2), Some(1)],
            ),
            // Stages by name, then in order.
            (
                &["[b 1/1] RUN b", "[new 1/1] RUN c"],
                &["[a 1/1] RUN a", "[b 1/1] RUN b"],
                &[Some(1), Some(0)],
            ),
            (
                &["[internal] load build context", "https://x/y"],
                &["[internal] load build context"],
                &[Some(0), None],
            ),
        ];
        for (now, old, expected) in table {
            let steps = |names: &[&str]| names.iter().map(|name| step(name)).collect::<Vec<_>>();
            assert_eq!(align(&steps(now), &steps(old)), *expected, "{now:?}");
        }
    }
}
