//! Which images and containers go, for `image prune` and `system prune`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use kiln_cache::{ImageRecord, Store};
use kiln_container::Container;
use kiln_image::{Digest, Reference};

use super::cache::prune::until;
use super::inspect;
use crate::report::Failure;

/// The values of `--filter`. All must fit.
#[derive(Debug, Default)]
pub(super) struct ImageFilter {
    /// Made so long ago.
    pub(super) age: Option<Duration>,
    labels: Vec<LabelFilter>,
    /// `image prune` only.
    pub(super) dangling: Option<bool>,
}

/// `label=KEY`, `label=KEY=VALUE`, and with `!=` the contrary.
#[derive(Debug, PartialEq, Eq)]
struct LabelFilter {
    key: String,
    value: Option<String>,
    wanted: bool,
}

impl ImageFilter {
    /// Reads them; `dangling=` only if `for_images`.
    pub(super) fn read(values: &[String], for_images: bool) -> Result<Self, Failure> {
        let mut filter = Self::default();
        for text in values {
            let label = |value: &str, wanted| {
                let (key, value) = match value.split_once('=') {
                    Some((key, value)) => (key, Some(value.to_owned())),
                    None => (value, None),
                };
                LabelFilter {
                    key: key.to_owned(),
                    value,
                    wanted,
                }
            };
            match text.split_once('=') {
                Some(("until", value)) => filter.age = Some(until(text, value)?),
                Some(("label", value)) if !value.is_empty() => filter.labels.push(label(value, true)),
                Some(("label!", value)) if !value.is_empty() => filter.labels.push(label(value, false)),
                Some(("dangling", "true" | "1")) if for_images => filter.dangling = Some(true),
                Some(("dangling", "false" | "0")) if for_images => filter.dangling = Some(false),
                _ => {
                    let names = if for_images {
                        "filters are until=DURATION, label=KEY[=VALUE], label!=KEY[=VALUE] and dangling=true|false"
                    } else {
                        "filters are until=DURATION, label=KEY[=VALUE] and label!=KEY[=VALUE]"
                    };
                    return Err(
                        Failure::usage(format!("--filter {text}: there is no such filter")).hint(names),
                    );
                }
            }
        }
        Ok(filter)
    }

    /// Whether it asks for labels: what has none does not fit.
    pub(super) fn has_labels(&self) -> bool {
        !self.labels.is_empty()
    }

    /// Whether something that was made at `created` (RFC 3339) is old enough.
    pub(super) fn is_old(&self, created: Option<&str>) -> bool {
        let Some(age) = self.age else { return true };
        let made = created.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        // What has no date was not made lately.
        made.is_none_or(|made| {
            let passed = jiff::Timestamp::now().duration_since(made);
            Duration::try_from(passed).is_ok_and(|passed| passed >= age)
        })
    }

    fn fits(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|filter| {
            let found = labels.get(&filter.key);
            let there = found.is_some_and(|found| filter.value.as_ref().is_none_or(|value| value == found));
            there == filter.wanted
        })
    }

    /// Whether the labels of an image fit. One that is lost has none.
    pub(super) fn fits_image(&self, store: &Store, image: Option<&ImageRecord>) -> Result<bool, Failure> {
        if self.labels.is_empty() {
            return Ok(true);
        }
        let Some(image) = image else {
            return Ok(self.fits(&BTreeMap::new()));
        };
        Ok(self.fits(&inspect::config(store, image)?.config.labels))
    }
}

/// The images that containers use.
pub(super) fn used_images<'a>(containers: impl IntoIterator<Item = &'a Container>) -> BTreeSet<Digest> {
    containers
        .into_iter()
        .filter_map(|container| container.state().options.image)
        .collect()
}

/// The images that go.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    pub(super) images: Vec<ImageRecord>,
    /// By which names, of the multi-platform images that it belongs to, each goes, if not by its id.
    targets: Vec<Vec<String>>,
}

/// Which images go while `containers` stay: those without a name, or `all`.
pub(super) fn choose_images(
    store: &Store,
    all: bool,
    filter: &ImageFilter,
    containers: &[Container],
) -> Result<Chosen, Failure> {
    let used = used_images(containers);
    let indexes = store.images().indexes()?;
    let mut chosen = Chosen::default();
    for record in store.images().list()? {
        let of_indexes: Vec<String> = indexes
            .iter()
            .filter(|index| index.images.iter().any(|entry| entry.image == record.id))
            .flat_map(|index| index.names.iter().cloned())
            .collect();
        let is_dangling = record.names.is_empty() && of_indexes.is_empty();
        let goes = !used.contains(&record.id)
            && (all || is_dangling)
            && filter.is_old(record.created.as_deref())
            && filter.fits_image(store, Some(&record))?;
        if goes {
            chosen.targets.push(if record.names.is_empty() {
                of_indexes
            } else {
                Vec::new()
            });
            chosen.images.push(record);
        }
    }
    Ok(chosen)
}

/// Removes them; returns what was done, as Docker tells it. Those that turn out to stay are taken out of `chosen`.
pub(super) fn remove_images(store: &Store, chosen: &Chosen, dry_run: bool) -> Result<String, Failure> {
    let mut text = String::new();
    for (record, names) in chosen.images.iter().zip(&chosen.targets) {
        if dry_run {
            for name in &record.names {
                let _ = writeln!(text, "untagged: {}", familiar(name));
            }
            let _ = writeln!(text, "deleted: {}", record.id);
            continue;
        }
        let own = [record.id.to_string()];
        let targets: &[String] = if names.is_empty() { &own } else { names };
        for target in targets {
            match store.images().remove(target, true) {
                Ok(removed) => {
                    for name in removed.untagged {
                        let _ = writeln!(text, "untagged: {}", familiar(&name));
                    }
                    for id in removed.deleted {
                        let _ = writeln!(text, "deleted: {id}");
                    }
                }
                // Gone with another one, or a part of one that stays.
                Err(kiln_cache::Error::ImageNotFound(_) | kiln_cache::Error::ImageInIndex { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(match (text.is_empty(), dry_run) {
        (true, _) => text,
        (false, true) => format!("Images that would be deleted:\n{text}\n"),
        (false, false) => format!("Deleted Images:\n{text}\n"),
    })
}

pub(super) fn familiar(name: &str) -> String {
    name.parse::<Reference>()
        .map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}

#[cfg(test)]
mod tests {
    use super::ImageFilter;

    fn read(texts: &[&str], for_images: bool) -> Result<ImageFilter, crate::report::Failure> {
        let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        ImageFilter::read(&texts, for_images)
    }

    #[test]
    fn labels_fit_as_docker_says() {
        let labels = [("stage", "test"), ("empty", "")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let table = [
            (&["label=stage"][..], true),
            (&["label=stage=test"], true),
            (&["label=stage=prod"], false),
            (&["label=other"], false),
            (&["label=empty="], true),
            (&["label!=stage"], false),
            (&["label!=stage=prod"], true),
            (&["label!=other"], true),
            (&["label=stage", "label!=other"], true),
            (&["label=stage", "label=other"], false),
            (&[], true),
        ];
        for (filters, fits) in table {
            assert_eq!(read(filters, false).unwrap().fits(&labels), fits, "{filters:?}");
        }
    }

    #[test]
    fn wrong_filters_are_refused() {
        assert_eq!(read(&["dangling=false"], true).unwrap().dangling, Some(false));
        for wrong in ["dangling=false", "label=", "label", "color=red", "until=soon"] {
            assert!(read(&[wrong], false).is_err(), "{wrong}");
        }
        assert!(read(&["dangling=perhaps"], true).is_err());
    }

    #[test]
    fn age_is_that_of_the_creation() {
        let filter = read(&["until=1h"], false).unwrap();
        let ago = |hours: i64| (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(hours)).to_string();
        assert!(filter.is_old(Some(&ago(2))) && filter.is_old(None));
        assert!(!filter.is_old(Some(&ago(0))));
    }
}
