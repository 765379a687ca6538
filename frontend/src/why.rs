//! Why the steps of a build ran, with what only the Dockerfile tells: lines, and where variables are declared.

use kiln_cache::{BuildId, Store};
use kiln_parser::ast::{Instruction, Statement};
use kiln_parser::{Dockerfile, LineIndex};
use kiln_solver::task::Reporter;
use kiln_solver::why::{Declaration, Difference, Earlier, Summary, Why};
use kiln_solver::{StepOutcome, StepReport};
use serde::Deserialize;

use crate::build::BuildRequest;
use crate::record::BuildRecord;

/// As many earlier builds of the same Dockerfile and target are compared with, until one has what is needed.
const EARLIER_BUILDS: usize = 8;

/// The beginning of a record: enough to tell whether it is of the same thing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Lineage {
    dockerfile: String,
    #[serde(default)]
    dockerfile_hash: String,
    context: String,
    target: Option<String>,
    platform: String,
    #[serde(default)]
    names: Vec<String>,
}

/// How near an earlier build is, the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kinship {
    /// The same Dockerfile and context.
    Same,
    /// The same Dockerfile text or repository, from another place: what CI machines do that check out anew each time.
    Moved,
}

impl Lineage {
    fn of(record: &BuildRecord) -> Self {
        Self {
            dockerfile: record.dockerfile.clone(),
            dockerfile_hash: record.dockerfile_hash.clone(),
            context: record.context.clone(),
            target: record.target.clone(),
            platform: record.platform.clone(),
            names: record.names.clone(),
        }
    }

    /// What `earlier` is to this one, if anything.
    fn kinship(&self, earlier: &Self) -> Option<Kinship> {
        if (&self.target, &self.platform) != (&earlier.target, &earlier.platform) {
            return None;
        }
        if (&self.dockerfile, &self.context) == (&earlier.dockerfile, &earlier.context) {
            return Some(Kinship::Same);
        }
        let same_text = !self.dockerfile_hash.is_empty() && self.dockerfile_hash == earlier.dockerfile_hash;
        let shared = |name: &String| {
            let mut others = earlier.names.iter().map(|name| repository(name));
            others.any(|other| other == repository(name))
        };
        (same_text || self.names.iter().any(shared)).then_some(Kinship::Moved)
    }
}

/// A name without its tag.
fn repository(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

/// The newest earlier builds of the same thing; those from another place only where there is none from this one. What
/// cannot be read is passed over.
fn earlier(store: &Store, id: &BuildId, record: &BuildRecord) -> Vec<(BuildId, BuildRecord)> {
    let lineage = Lineage::of(record);
    let ids = store.builds().list().unwrap_or_default();
    let related: Vec<(Kinship, BuildId)> = ids
        .into_iter()
        .filter(|other| other != id)
        .filter_map(|other| {
            let found: Lineage = store.builds().get(&other).ok()??;
            Some((lineage.kinship(&found)?, other))
        })
        .collect();
    let of = |wanted: Kinship| -> Vec<(BuildId, BuildRecord)> {
        let builds = related.iter().filter(|(kinship, _)| *kinship == wanted);
        let records = builds.filter_map(|(_, other)| {
            let record: BuildRecord = store.builds().get(other).ok()??;
            // A build that never came to its steps says nothing about them.
            (!record.steps.is_empty()).then(|| (other.clone(), record))
        });
        records.take(EARLIER_BUILDS).collect()
    };
    let same = of(Kinship::Same);
    if same.is_empty() { of(Kinship::Moved) } else { same }
}

/// The newest of the other builds of the same Dockerfile and target that came to its steps.
pub fn build_before(store: &Store, id: &BuildId, record: &BuildRecord) -> Option<BuildId> {
    earlier(store, id, record).into_iter().next().map(|(id, _)| id)
}

/// Says of each step that ran why it did, in `record` and to the reporter. A fully cached build costs nothing here.
pub(crate) fn explain(
    store: &Store,
    request: &BuildRequest,
    id: &BuildId,
    record: &mut BuildRecord,
    reporter: &Reporter,
) {
    if !record.steps.iter().any(StepReport::is_miss) {
        // Nothing to compare; but what is told of kept and of verified steps has their lines.
        let is_told =
            |step: &StepReport| step.outcome == StepOutcome::CachedByContent || step.verified.is_some();
        if record.steps.iter().any(is_told) {
            let source = Source::of(request);
            record.steps.iter_mut().for_each(|step| source.set_line(step));
        }
        if let Some(summary) = Summary::of(&record.steps) {
            reporter.summary(summary);
        }
        return;
    }
    let builds = earlier(store, id, record);
    let earlier: Vec<Earlier<'_>> = builds
        .iter()
        .map(|(id, record)| Earlier {
            build: id.as_str(),
            steps: &record.steps,
        })
        .collect();
    kiln_solver::why::explain(store, &mut record.steps, &earlier);
    let source = Source::of(request);
    for step in &mut record.steps {
        source.complete(step);
        if let Some(Why::IgnoredCache { by_stage }) = &mut step.why {
            *by_stage = !request.options.no_cache;
        }
    }
    if let Some(summary) = Summary::of(&record.steps) {
        reporter.summary(summary);
    }
}

struct Source<'a> {
    text: &'a [u8],
    lines: LineIndex,
    dockerfile: Dockerfile,
}

impl<'a> Source<'a> {
    fn of(request: &'a BuildRequest) -> Self {
        Self {
            text: &request.dockerfile,
            lines: LineIndex::new(&request.dockerfile),
            dockerfile: kiln_parser::parse(&request.dockerfile).dockerfile,
        }
    }

    fn set_line(&self, step: &mut StepReport) {
        step.line = step.span.map(|span| self.lines.line(span.start));
    }

    /// Adds the step's line, and where its variables are declared.
    fn complete(&self, step: &mut StepReport) {
        let Some(span) = step.span else { return };
        self.set_line(step);
        let Some(Why::Changed { differences, .. }) = &mut step.why else {
            return;
        };
        let text = self.text.get(span.start..span.end).unwrap_or_default();
        for difference in differences {
            let Difference::Variable {
                name,
                declared,
                mentioned,
                ..
            } = difference
            else {
                continue;
            };
            *declared = self.declaration(name, span.start);
            *mentioned = Some(mentions(text, name));
        }
    }

    /// The last declaration of a variable before `place`: in the same stage, else in one before it.
    fn declaration(&self, name: &str, place: usize) -> Option<Declaration> {
        let statements = &self.dockerfile.instructions;
        let before = statements.partition_point(|statement| statement.span.start < place);
        let statements = statements.get(..before).unwrap_or_default();
        let is_from = |statement: &Statement| matches!(statement.instruction, Instruction::From(_));
        let from = statements.iter().rposition(is_from).unwrap_or(0);
        let declares = |statement: &Statement| match &statement.instruction {
            Instruction::Arg(arg) => {
                let named = arg.declarations.iter().any(|one| one.name.text == name);
                named.then_some("ARG")
            }
            Instruction::Env(env) => {
                let named = env.pairs.iter().any(|pair| pair.key.text == name);
                named.then_some("ENV")
            }
            _ => None,
        };
        let last = |statements: &'_ [Statement]| {
            let found = statements.iter().enumerate();
            found
                .filter_map(|(at, statement)| Some((at, declares(statement)?)))
                .next_back()
        };
        let own = last(statements.get(from..).unwrap_or_default()).map(|(at, found)| (from + at, found));
        let (at, instruction) = own.or_else(|| last(statements))?;
        let statement = statements.get(at)?;
        Some(Declaration {
            instruction: instruction.to_owned(),
            line: self.lines.line(statement.span.start),
        })
    }
}

/// Whether `text` has `name` as a word of its own.
fn mentions(text: &[u8], name: &str) -> bool {
    let part_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let name = name.as_bytes();
    !name.is_empty()
        && text.windows(name.len()).enumerate().any(|(at, window)| {
            let before = at.checked_sub(1).and_then(|at| text.get(at));
            let after = text.get(at + name.len());
            window == name && !before.is_some_and(part_of_name) && !after.is_some_and(part_of_name)
        })
}

#[cfg(test)]
mod tests {
    use kiln_parser::LineIndex;

    use super::{Kinship, Lineage, Source, mentions};

    /// What is changed, and what the other build is then.
    type Row = (fn(&mut Lineage), Option<Kinship>);

    #[test]
    fn builds_from_another_place_are_related_by_text_or_repository() {
        let here = Lineage {
            dockerfile: "Dockerfile".to_owned(),
            dockerfile_hash: "1".to_owned(),
            context: "/job/1".to_owned(),
            target: None,
            platform: "linux/amd64".to_owned(),
            names: vec!["registry:5000/app:1".to_owned()],
        };
        let changed = |change: fn(&mut Lineage)| {
            let mut other = here.clone();
            change(&mut other);
            here.kinship(&other)
        };
        let table: [Row; 8] = [
            (|_| (), Some(Kinship::Same)),
            (
                |other| other.dockerfile_hash = "2".to_owned(),
                Some(Kinship::Same),
            ),
            (|other| other.context = "/job/2".to_owned(), Some(Kinship::Moved)),
            (
                |other| {
                    other.context = "/job/2".to_owned();
                    other.dockerfile_hash = "2".to_owned();
                    other.names = vec!["registry:5000/app:2".to_owned()];
                },
                Some(Kinship::Moved),
            ),
            (
                |other| {
                    other.context = "/job/2".to_owned();
                    other.dockerfile_hash = "2".to_owned();
                    other.names = vec!["registry:5000/other:1".to_owned()];
                },
                None,
            ),
            (
                |other| {
                    other.context = "/job/2".to_owned();
                    other.dockerfile_hash = String::new();
                    other.names.clear();
                },
                None,
            ),
            (|other| other.target = Some("x".to_owned()), None),
            (|other| other.platform = "linux/arm64".to_owned(), None),
        ];
        for (at, (change, expected)) in table.into_iter().enumerate() {
            assert_eq!(changed(change), expected, "row {at}");
        }
    }

    #[test]
    fn names_are_words() {
        let table = [
            ("RUN echo $SHA", "SHA", true),
            ("RUN echo ${SHA:-x}", "SHA", true),
            ("RUN echo $GIT_SHA", "SHA", false),
            ("RUN echo $SHA1", "SHA", false),
            ("RUN printenv SHA", "SHA", true),
            ("RUN make", "SHA", false),
            ("SHA", "SHA", true),
            ("", "SHA", false),
        ];
        for (text, name, expected) in table {
            assert_eq!(mentions(text.as_bytes(), name), expected, "{text}");
        }
    }

    #[test]
    fn the_last_declaration_before_the_step_counts() {
        let text = b"ARG A=1\nFROM x\nARG A\nENV B=2\nRUN one\nENV A=3 C=4\nRUN two\n";
        let source = Source {
            text,
            lines: LineIndex::new(text),
            dockerfile: kiln_parser::parse(text).dockerfile,
        };
        let at = |step: &str| String::from_utf8_lossy(text).find(step).unwrap();
        let table = [
            ("A", "RUN one", Some(("ARG", 3))),
            ("A", "RUN two", Some(("ENV", 6))),
            ("B", "RUN two", Some(("ENV", 4))),
            ("C", "RUN one", None),
        ];
        for (name, step, expected) in table {
            let found = source.declaration(name, at(step));
            let found = found
                .as_ref()
                .map(|found| (found.instruction.as_str(), found.line));
            assert_eq!(found, expected, "{name} {step}");
        }
    }
}
