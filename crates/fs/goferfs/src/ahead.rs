//! Looking up ahead: whoever lists a directory mostly looks at its entries next, in that order.
//!
//! A message to the Gofer and back takes some ten times as long as what it does for one name. So the names of the
//! directories listed last are kept, and a lookup of one of them asks for those behind it too: for more each
//! time, while most of what was asked for is used. Behind it is what follows by name, for so an overlay lists.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;

use abi::Errno;
use gofer_proto::{MAX_LOOKUPS, Name, NodeAttr, NodeId, Request, Response};
use sync::Mutex;
use sync::order::Leaf;

use crate::client::Client;

/// Directories whose names are kept.
const LISTINGS: usize = 4;
/// Most bytes of names that are kept of each.
const MAX_NAMES: usize = 512 << 10;
/// Names asked for at first.
const FIRST: usize = 4;

/// A directory that was listed.
struct Listing {
    dir: NodeId,
    /// The file system's count of changes when it was.
    changes: u64,
    /// Names, and whether they were looked up.
    names: BTreeMap<Box<[u8]>, bool>,
    bytes: usize,
    /// How many to ask for.
    batch: usize,
    found: HashMap<Box<[u8]>, NodeAttr>,
}

impl Listing {
    fn fresh(dir: NodeId, changes: u64) -> Self {
        let (names, found) = (BTreeMap::new(), HashMap::new());
        Self { dir, changes, names, bytes: 0, batch: 0, found }
    }

    /// Nodes that were found and not asked for.
    fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.found.values().map(|found| found.node)
    }

    /// Takes `name` and the ones behind it, but for those that were looked up.
    fn take(&mut self, name: &[u8]) -> Option<Vec<Box<[u8]>>> {
        if *self.names.get(name)? {
            return None;
        }
        let used = self.found.len() * 2 <= self.batch;
        self.batch = if used { (self.batch * 2).clamp(FIRST, MAX_LOOKUPS) } else { FIRST };
        let behind = self.names.range_mut::<[u8], _>((Bound::Included(name), Bound::Unbounded));
        // Not over all of what was looked up already, again and again.
        let fresh = behind.take(4 * MAX_LOOKUPS).filter(|(_, looked_up)| !**looked_up).take(self.batch);
        let taken = fresh.map(|(name, looked_up)| {
            *looked_up = true;
            name.clone()
        });
        Some(taken.collect())
    }
}

/// The directories listed last.
#[derive(Default)]
pub(crate) struct Ahead(Mutex<Leaf, VecDeque<Listing>>);

impl Ahead {
    /// Entries of `dir` were listed, from its beginning or behind those that were before. Returns nodes that
    /// nobody will ask for any more.
    pub(crate) fn listed<'a>(
        &self,
        dir: NodeId,
        changes: u64,
        first: bool,
        names: impl Iterator<Item = &'a [u8]>,
    ) -> Vec<NodeId> {
        let mut listings = self.0.lock();
        let known = listings.iter().position(|listing| listing.dir == dir);
        let known = known.and_then(|at| listings.remove(at));
        let mut gone = Vec::new();
        let mut listing = match known {
            Some(listing) if listing.changes == changes && !first => listing,
            Some(listing) => {
                gone.push(listing);
                Listing::fresh(dir, changes)
            }
            None => Listing::fresh(dir, changes),
        };
        for name in names {
            if listing.bytes + name.len() > MAX_NAMES {
                break;
            }
            // A piece may come twice.
            if !listing.names.contains_key(name) {
                listing.bytes += name.len();
                listing.names.insert(name.into(), false);
            }
        }
        listings.push_back(listing);
        if listings.len() > LISTINGS {
            gone.extend(listings.pop_front());
        }
        gone.iter().flat_map(Listing::nodes).collect()
    }

    /// What was found of `name` in `dir`, asking `client` if it has not been asked before; nothing when it is to be
    /// looked up by itself. Also returns nodes that nobody will ask for.
    pub(crate) fn lookup(
        &self,
        client: &Client,
        dir: NodeId,
        name: &[u8],
        changes: u64,
    ) -> Result<(Option<NodeAttr>, Vec<NodeId>), Errno> {
        let names = {
            let mut listings = self.0.lock();
            let Some(listing) = find(&mut listings, dir, changes) else { return Ok((None, Vec::new())) };
            if let Some(found) = listing.found.remove(name) {
                return Ok((Some(found), Vec::new()));
            }
            listing.take(name).unwrap_or_default()
        };
        if names.len() < 2 {
            return Ok((None, Vec::new()));
        }
        let asked = names.iter().map(|name| Name::new(name)).collect::<Result<_, _>>();
        let names_asked = asked.map_err(|_| Errno::EIO)?;
        let Response::Found(nodes) = client.ask(&Request::LookupMany { dir, names: names_asked })? else {
            return Err(Errno::EIO);
        };
        let mut nodes = nodes.into_iter();
        let first = nodes.next().flatten();
        let others = names.into_iter().skip(1).zip(nodes).filter_map(|(name, node)| Some((name, node?)));
        let mut listings = self.0.lock();
        let gone = match find(&mut listings, dir, changes) {
            Some(listing) => {
                listing.found.extend(others);
                Vec::new()
            }
            None => others.map(|(_, found)| found.node).collect(),
        };
        Ok((first, gone))
    }

    /// All nodes that are kept.
    pub(crate) fn nodes(&mut self) -> Vec<NodeId> {
        let listings = std::mem::take(self.0.get_mut());
        listings.iter().flat_map(Listing::nodes).collect()
    }
}

fn find(listings: &mut VecDeque<Listing>, dir: NodeId, changes: u64) -> Option<&mut Listing> {
    listings.iter_mut().find(|listing| listing.dir == dir && listing.changes == changes)
}
