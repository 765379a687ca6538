//! What layers look like on top of each other.

use crate::Listing;

impl Listing {
    /// The tree that shows when the layer `upper` lies on `lower`: whiteouts and opaque directories are carried out
    /// and gone from the result.
    pub fn merge(_lower: &Listing, _upper: &Listing) -> Listing {
        todo!()
    }

    /// The tree that shows when `layers` lie on each other, the lowest first.
    pub fn merge_all<'a>(_layers: impl IntoIterator<Item = &'a Listing>) -> Listing {
        todo!()
    }
}
