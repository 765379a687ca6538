//! What is in layers that are not here: their listings, which came along.
//!
//! They are foreign bytes, and small ones can stand for much: how much memory all of a build's listings may take is
//! bounded. A layer whose listing is not taken is fetched where its files must be known.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::{Arc, Mutex};

use kiln_cache::LayerId;
use kiln_image::Descriptor;
use kiln_image::layer::decompress;
use kiln_tree::Listing;

use super::{Imports, lock, with_place};
use crate::error::chain;
use crate::remote_cache::{CacheLocation, read};

/// Bytes of a listing, compressed and not. An entry takes about a hundred bytes, half of them a hash.
const MAX_BLOB: usize = 8 << 20;
const MAX_PLAIN: u64 = 16 << 20;
/// Memory for all listings of a build: those of 150,000 files.
const MEMORY: usize = 32 << 20;

/// A listing that was asked for.
#[derive(Clone)]
enum Known {
    Usable(Arc<Listing>),
    /// Nobody asks again.
    Unusable,
}

impl Known {
    fn usable(self) -> Option<Arc<Listing>> {
        match self {
            Self::Usable(listing) => Some(listing),
            Self::Unusable => None,
        }
    }
}

/// The listings of one build's imported layers.
pub(super) struct Listings {
    known: Mutex<HashMap<LayerId, Known>>,
    /// The memory that is left. Locked while a listing is read: one at a time is in the making.
    room: Mutex<usize>,
}

impl Default for Listings {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            room: Mutex::new(MEMORY),
        }
    }
}

impl Imports<'_> {
    /// What is in a layer that may not be in the store: from its own listing, as far as that has the hash that the
    /// layer's id says.
    pub(crate) fn listing(&self, id: &LayerId) -> Option<Arc<Listing>> {
        if let Some(known) = self.known_listing(id) {
            return known.usable();
        }
        let (_, imported, layer) = self.promised(id)?;
        let blob = layer.listing.as_ref()?;
        let mut room = lock(&self.listings.room);
        // Somebody else may have read it meanwhile.
        if let Some(known) = self.known_listing(id) {
            return known.usable();
        }
        let listing = match self.read_listing(&imported.location, id, blob, &mut room) {
            Ok(Some(listing)) => Known::Usable(Arc::new(listing)),
            Ok(None) => Known::Unusable,
            Err(error) => {
                // The layer itself may be in order.
                let message = format!(
                    "the listing of layer {id} from {} cannot be used: {error}",
                    imported.location
                );
                self.reporter.warn(message, None);
                Known::Unusable
            }
        };
        lock(&self.listings.known).insert(id.clone(), listing.clone());
        listing.usable()
    }

    fn known_listing(&self, id: &LayerId) -> Option<Known> {
        lock(&self.listings.known).get(id).cloned()
    }

    /// Nothing when nobody waits for it any more.
    fn read_listing(
        &self,
        location: &CacheLocation,
        id: &LayerId,
        blob: &Descriptor,
        room: &mut usize,
    ) -> Result<Option<Listing>, String> {
        let packed = with_place(self.engine, location, |place| {
            read::read_bounded(place, blob, MAX_BLOB)
        });
        let packed = match packed {
            Ok(packed) => packed,
            Err(error) if error.is_canceled() => return Ok(None),
            Err(error) => return Err(chain(&error)),
        };
        let mut plain = Vec::new();
        decompress(&packed[..])
            .and_then(|reader| reader.take(MAX_PLAIN + 1).read_to_end(&mut plain))
            .map_err(|error| error.to_string())?;
        drop(packed);
        if plain.len() as u64 > MAX_PLAIN {
            return Err(format!("it has more than {MAX_PLAIN} bytes"));
        }
        let before = *room;
        let listing = Listing::from_foreign_bytes(&plain, room).map_err(|error| chain(&error))?;
        let found = LayerId::from_content(&listing.content_hash());
        if found == *id {
            return Ok(Some(listing));
        }
        *room = before;
        Err(format!("it is that of {found}"))
    }
}
