//! Lists that end where a document's would: a foreign one must not take memory for what is refused afterwards.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};

use super::{DocumentLayer, DocumentRecord, MAX_FOREIGN_LAYERS, MAX_FOREIGN_RECORDS, MAX_OUTPUT};

struct AtMost<T> {
    what: &'static str,
    limit: usize,
    of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for AtMost<T> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a list of {}", self.what)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = list.next_element()? {
            if elements.len() == self.limit {
                let Self { what, limit, .. } = self;
                return Err(A::Error::custom(format_args!("more than {limit} {what}")));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}

fn at_most<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
    what: &'static str,
    limit: usize,
) -> Result<Vec<T>, D::Error> {
    let of = PhantomData;
    deserializer.deserialize_seq(AtMost { what, limit, of })
}

pub(super) fn layers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DocumentLayer>, D::Error> {
    at_most(deserializer, "layers", MAX_FOREIGN_LAYERS)
}

pub(super) fn records<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DocumentRecord>, D::Error> {
    at_most(deserializer, "records", MAX_FOREIGN_RECORDS)
}

pub(super) fn output<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    at_most(deserializer, "layers of a record", MAX_OUTPUT)
}
