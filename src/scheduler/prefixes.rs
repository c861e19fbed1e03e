//! Which tokens have keys and values already: an index over sequences that run and prefixes that were kept.
//!
//! Tokens are hashed in blocks, each with all before it, so a prompt finds the longest prefix that somebody holds by
//! looking up its blocks one after another; the tokens themselves decide.

use crate::request::RequestId;
use crate::segments::{SlotGroups, Tables};
use crate::sequence::Sequence;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// Tokens to a block: a shorter prefix is not worth sharing.
const BLOCK: usize = 16;

/// Holders of a block that are looked at.
const CANDIDATES: usize = 2;

/// Kept prefixes at most.
const MOST_KEPT: usize = 4096;

/// Tokens of all kept prefixes that are allowed in any cache: 4 bytes each.
const MOST_KEPT_TOKENS: usize = 1 << 20;

/// Whose tokens a block is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// A sequence that runs.
    Running(RequestId),
    /// What an ended one left.
    Kept(u64),
}

/// What the index knows of a prompt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing worth sharing.
    Nothing,
    /// The first `len` tokens can be shared now.
    Prefix {
        /// With whom.
        holder: Holder,
        /// Tokens.
        len: usize,
    },
    /// A running sequence is about to compute more of them.
    Soon,
}

/// The index, and the prefixes that it alone keeps.
#[derive(Debug)]
pub(super) struct Prefixes {
    enabled: bool,
    /// Lengths that are shared are multiples of this.
    quantum: usize,
    holders: FxHashMap<u64, SmallVec<[Holder; 2]>>,
    running: FxHashMap<RequestId, Vec<u64>>,
    kept: FxHashMap<u64, Kept>,
    /// Kept prefixes by the hash of their last whole block.
    by_end: FxHashMap<u64, SmallVec<[u64; 1]>>,
    /// Least recently used first: stamp → kept prefix.
    by_use: BTreeMap<u64, u64>,
    next: u64,
    kept_tokens: usize,
}

#[derive(Debug)]
struct Kept {
    tokens: Vec<u32>,
    hashes: Vec<u64>,
    tables: Tables,
    used: u64,
}

impl Prefixes {
    pub(super) fn new(enabled: bool, quantum: usize) -> Self {
        Prefixes {
            enabled,
            quantum,
            holders: FxHashMap::default(),
            running: FxHashMap::default(),
            kept: FxHashMap::default(),
            by_end: FxHashMap::default(),
            by_use: BTreeMap::new(),
            next: 0,
            kept_tokens: 0,
        }
    }

    /// The hash of each whole block of tokens with all before it; none where prefixes are not shared.
    pub(super) fn blocks(&self, tokens: &[u32]) -> Vec<u64> {
        if self.enabled { Hashes::new(tokens).collect() } else { Vec::new() }
    }

    /// The longest prefix of a sequence's tokens that somebody holds, at least a block and less than all, so that one is
    /// left to compute.
    pub(super) fn find(
        &self,
        sequence: &Sequence,
        sequences: &FxHashMap<RequestId, Sequence>,
        slots: &SlotGroups,
    ) -> Found {
        let tokens = &sequence.tokens[..];
        let last = sequence.blocks.iter().map_while(|hash| self.holders.get(hash)).last();
        let Some(holders) = last else { return Found::Nothing };
        let (mut best, mut coming) = ((0, None), 0);
        for &holder in holders.iter().take(CANDIDATES) {
            let (theirs, computed, tables) = match holder {
                Holder::Kept(id) => (&self.kept[&id].tokens, usize::MAX, &self.kept[&id].tables),
                Holder::Running(request) => {
                    let sequence = &sequences[&request];
                    let Some(tables) = &sequence.tables else { continue };
                    (&sequence.tokens, sequence.computed, tables)
                }
            };
            let common = theirs.iter().zip(tokens).take_while(|(a, b)| a == b).count().min(tokens.len() - 1);
            let now = common.min(computed) / self.quantum * self.quantum;
            if now > best.0 && slots.can_fork(tables, now) {
                best = (now, Some(holder));
            }
            // What has scrolled out of its window will not come back.
            let later = common / self.quantum * self.quantum;
            let first = match holder {
                Holder::Running(request) => (sequences[&request].rank, request) < (sequence.rank, sequence.request),
                Holder::Kept(_) => false,
            };
            // Who waits for one that comes later waits for all between them.
            if first && computed < later && slots.can_fork_later(tables, later) {
                coming = coming.max(later);
            }
        }
        match best {
            (len, _) if coming > len && coming >= BLOCK => Found::Soon,
            (len, Some(holder)) if len >= BLOCK => Found::Prefix { holder, len },
            _ => Found::Nothing,
        }
    }

    /// The tables of a kept prefix, which counts as used now.
    pub(super) fn touch(&mut self, id: u64) -> &Tables {
        let stamp = self.stamp();
        let kept = self.kept.get_mut(&id).expect("a kept prefix");
        self.by_use.remove(&kept.used);
        self.by_use.insert(stamp, id);
        kept.used = stamp;
        &kept.tables
    }

    /// Notes the blocks of a running sequence that are not noted yet.
    pub(super) fn note(&mut self, request: RequestId, tokens: &[u32]) {
        if !self.enabled {
            return;
        }
        let noted = self.running.entry(request).or_default();
        let from = noted.last().copied().unwrap_or(0);
        let new = Hashes { tokens: &tokens[noted.len() * BLOCK..], hash: from };
        for hash in new {
            noted.push(hash);
            self.holders.entry(hash).or_default().push(Holder::Running(request));
        }
    }

    /// Forgets a running sequence.
    pub(super) fn forget(&mut self, request: RequestId) {
        if let Some(hashes) = self.running.remove(&request) {
            self.remove(&hashes, Holder::Running(request));
        }
    }

    /// Keeps what an ended sequence has computed, its first `tokens`, or gives its slots back where that is known
    /// already or too short.
    pub(super) fn keep(&mut self, tokens: Vec<u32>, tables: Tables, slots: &mut SlotGroups) {
        let hashes: Vec<u64> = Hashes::new(&tokens).collect();
        let Some(last) = hashes.last().copied().filter(|_| self.enabled) else { return slots.free(tables) };
        let kept = self.holders.get(&last).into_iter().flatten().find_map(|holder| match holder {
            Holder::Kept(id) if self.kept[id].tokens.starts_with(&tokens) => Some(*id),
            _ => None,
        });
        if let Some(id) = kept {
            self.touch(id);
            return slots.free(tables);
        }
        // A dialogue's next turn takes the place of the last, whose last block is one of its own.
        let ends = hashes.iter().filter_map(|hash| self.by_end.get(hash)).flatten();
        let covered: Vec<u64> = ends.copied().filter(|id| tokens.starts_with(&self.kept[id].tokens)).collect();
        covered.into_iter().for_each(|id| self.drop_kept(id, slots));
        slots.truncate(&tables, tokens.len());
        slots.settle(&tables);
        let (id, used) = (self.stamp(), self.stamp());
        for &hash in &hashes {
            self.holders.entry(hash).or_default().push(Holder::Kept(id));
        }
        self.by_use.insert(used, id);
        self.by_end.entry(last).or_default().push(id);
        self.kept_tokens += tokens.len();
        self.kept.insert(id, Kept { tokens, hashes, tables, used });
        // Kept prefixes that share slots could be many without holding much of the cache.
        let most_tokens = MOST_KEPT_TOKENS.max(8 * slots.capacity());
        while self.kept.len() > MOST_KEPT || (self.kept.len() > 1 && self.kept_tokens > most_tokens) {
            self.evict(slots);
        }
    }

    /// Gives up the least recently used kept prefix; `false` where there is none.
    pub(super) fn evict(&mut self, slots: &mut SlotGroups) -> bool {
        let Some((_, &id)) = self.by_use.first_key_value() else { return false };
        self.drop_kept(id, slots);
        true
    }

    fn drop_kept(&mut self, id: u64, slots: &mut SlotGroups) {
        let Some(kept) = self.kept.remove(&id) else { return };
        self.by_use.remove(&kept.used);
        self.kept_tokens -= kept.tokens.len();
        self.remove(&kept.hashes, Holder::Kept(id));
        let last = kept.hashes.last().expect("a kept prefix has a block");
        if let Some(ids) = self.by_end.get_mut(last) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_end.remove(last);
            }
        }
        slots.free(kept.tables);
    }

    fn remove(&mut self, hashes: &[u64], holder: Holder) {
        for hash in hashes {
            if let Some(holders) = self.holders.get_mut(hash) {
                if let Some(place) = holders.iter().position(|other| *other == holder) {
                    holders.swap_remove(place);
                }
                if holders.is_empty() {
                    self.holders.remove(hash);
                }
            }
        }
    }

    fn stamp(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// The hash of each whole block of tokens with all before it.
struct Hashes<'a> {
    tokens: &'a [u32],
    hash: u64,
}

impl<'a> Hashes<'a> {
    fn new(tokens: &'a [u32]) -> Self {
        Hashes { tokens, hash: 0 }
    }
}

impl Iterator for Hashes<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let (block, rest) = self.tokens.split_at_checked(BLOCK)?;
        self.tokens = rest;
        // A finaliser after each token, since neighbouring prompts differ in few bits.
        self.hash = block.iter().fold(self.hash, |hash, &token| {
            let mixed =
                (hash ^ u64::from(token)).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed ^ (mixed >> 29)
        });
        Some(self.hash)
    }
}
