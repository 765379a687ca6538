//! The critical path of a build: the steps that its time was spent on, each of which the next one waited for.

use kiln_solver::StepReport;

/// The positions of the steps on the critical path, in order: from the step that ended last, always the input that
/// ended last.
pub(super) fn critical(steps: &[StepReport]) -> Vec<usize> {
    let end = |at: usize| steps.get(at).map_or(0, |step| step.began_ms + step.milliseconds);
    let took = |at: &usize| steps.get(*at).map_or(0, |step| step.milliseconds);
    let mut path = Vec::new();
    let mut next = (0..steps.len())
        .filter(|at| took(at) > 0)
        .max_by_key(|at| end(*at));
    while let Some(at) = next {
        // What took no time leads on to what did.
        if took(&at) > 0 {
            path.push(at);
        }
        let inputs = steps
            .get(at)
            .map(|step| step.inputs.as_slice())
            .unwrap_or_default();
        // Inputs come before what needs them: this ends.
        let earlier = inputs.iter().copied().filter(|input| *input < at);
        next = earlier.max_by_key(|input| (end(*input), took(input)));
    }
    path.reverse();
    path
}

#[cfg(test)]
pub(super) mod tests {
    use kiln_solver::StepReport;
    use serde_json::json;

    use super::critical;

    pub(in super::super) fn step(
        name: &str,
        began_ms: u64,
        milliseconds: u64,
        inputs: &[usize],
    ) -> StepReport {
        serde_json::from_value(json!({
            "name": name, "kind": "run", "outcome": "ran", "key": null, "began_ms": began_ms,
            "milliseconds": milliseconds, "inputs": inputs,
        }))
        .unwrap()
    }

    #[test]
    fn the_path_follows_what_ended_last() {
        let steps = [
            step("from", 0, 50, &[]),
            step("short", 50, 10, &[0]),
            step("long", 50, 500, &[0]),
            step("cached", 550, 0, &[1]),
            step("join", 550, 20, &[1, 2]),
            step("kept", 570, 0, &[4]),
            step("last", 570, 5, &[5]),
        ];
        assert_eq!(critical(&steps), [0, 2, 4, 6]);
        assert!(critical(&[]).is_empty());
        assert!(critical(&[step("cached", 3, 0, &[])]).is_empty());
        // A record that somebody wrote by hand does not hang.
        assert_eq!(critical(&[step("self", 0, 1, &[0])]), [0]);
    }
}
