//! The slots of all KV groups of a model: a sequence has a table in each.

use super::{Move, Policy, QUANTUM, Segment, Segments, Table};
use smallvec::SmallVec;

/// The slots of every KV group: layers with one window share one.
#[derive(Debug)]
pub struct SlotGroups {
    groups: Vec<Group>,
    /// Refuses growth now and then, as a test of what follows: a state, and one in how many.
    refusals: Option<(u64, u64)>,
}

#[derive(Debug)]
struct Group {
    window: Option<usize>,
    slots: Segments,
}

/// A sequence's table in each KV group.
pub type Tables = SmallVec<[Table; 2]>;

impl SlotGroups {
    /// All slots free; `groups` are (window, capacity).
    ///
    /// # Panics
    /// If there is no group.
    pub fn new(groups: &[(Option<usize>, usize)], policy: &Policy) -> Self {
        assert!(!groups.is_empty(), "a model has a KV group");
        let group = |&(window, capacity)| Group { window, slots: Segments::with_policy(capacity, policy.clone()) };
        SlotGroups { groups: groups.iter().map(group).collect(), refusals: None }
    }

    /// KV groups.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Never: a model has a KV group.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The window of every group.
    pub fn windows(&self) -> impl Iterator<Item = Option<usize>> {
        self.groups.iter().map(|group| group.window)
    }

    /// One group's slots.
    pub fn group(&self, group: usize) -> &Segments {
        &self.groups[group].slots
    }

    /// One group's slots.
    pub fn group_mut(&mut self, group: usize) -> &mut Segments {
        &mut self.groups[group].slots
    }

    /// Positions that one sequence alone may reach: the slots of the groups that keep every position; `usize::MAX` where
    /// all give back what is behind their window.
    pub fn longest(&self) -> usize {
        self.groups
            .iter()
            .filter(|group| !group.slides())
            .map(|group| group.slots.capacity())
            .min()
            .unwrap_or(usize::MAX)
    }

    /// Tokens that a step may add to a sequence in the groups with a window, beside the window itself.
    pub fn longest_chunk(&self) -> usize {
        let chunk = |group: &Group| match group.window {
            Some(window) if group.slides() => group.slots.capacity() - window - group.slots.policy().quantum,
            _ => usize::MAX,
        };
        self.groups.iter().map(chunk).min().unwrap_or(usize::MAX)
    }

    /// Slots of the first group, by which the cache is measured.
    pub fn capacity(&self) -> usize {
        self.groups[0].slots.capacity()
    }

    /// Free slots of the first group.
    pub fn free_slots(&self) -> usize {
        self.groups[0].slots.free_slots()
    }

    /// Refuses to grow tables once in so many times, at random: for tests.
    #[doc(hidden)]
    pub fn refuse_some(&mut self, seed: u64, one_in: u64) {
        self.refusals = Some((seed, one_in));
    }

    /// Empty tables.
    pub fn admit(&mut self) -> Tables {
        self.groups.iter_mut().map(|group| group.slots.admit()).collect()
    }

    /// Whether a new sequence of so many tokens, computed at most `chunk` at a time, has room with some to spare.
    /// `owed` is what [`SlotGroups::owed`] says of those that run.
    pub fn may_admit(&self, tokens: usize, chunk: usize, owed: &[usize]) -> bool {
        self.groups.iter().zip(owed).all(|(group, owed)| group.slots.may_admit(group.held(tokens, chunk) + owed))
    }

    /// Whether it could have room in the groups that keep every position, if all that is kept for later were given back.
    pub fn could_admit(&self, tokens: usize) -> bool {
        self.groups.iter().filter(|group| group.window.is_none()).all(|group| group.slots.could_admit(tokens))
    }

    /// Slots that sequences of so many tokens will take in each group beyond those that they have: none where all positions
    /// are reserved at admission.
    pub fn owed<'a>(&self, running: impl Iterator<Item = (&'a Tables, usize)>, chunk: usize) -> SmallVec<[usize; 2]> {
        let mut owed: SmallVec<[usize; 2]> = self.groups.iter().map(|_| 0).collect();
        if self.groups.iter().any(|group| group.window.is_some()) {
            for (tables, tokens) in running {
                for (place, group) in self.groups.iter().enumerate().filter(|(_, group)| group.window.is_some()) {
                    owed[place] += group.held(tokens, chunk).saturating_sub(group.slots.slots_of(tables[place]));
                }
            }
        }
        owed
    }

    /// Takes slots for all of `tokens` positions in the groups that keep every position.
    pub fn reserve(&mut self, tables: &Tables, tokens: usize) -> bool {
        self.grow(tables, tokens, |group| group.window.is_none())
    }

    /// Makes the tables reach `tokens` positions; `false` leaves them as they were, though perhaps elsewhere.
    pub fn extend(&mut self, tables: &Tables, tokens: usize) -> bool {
        self.grow(tables, tokens, |_| true)
    }

    /// Whether the tables could reach `tokens` positions if they lay elsewhere.
    pub fn could_extend(&self, tables: &Tables, tokens: usize) -> bool {
        self.each(tables).all(|(group, table)| {
            let (slots, quantum) = (&group.slots, group.slots.policy().quantum);
            let first = slots.first_position(table) / quantum * quantum;
            (tokens - first).next_multiple_of(quantum) <= slots.slots_of(table) + slots.free_slots()
        })
    }

    fn grow(&mut self, tables: &Tables, tokens: usize, which: impl Fn(&Group) -> bool) -> bool {
        if let Some((state, one_in)) = &mut self.refusals {
            *state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            if (*state >> 33).is_multiple_of(*one_in) {
                return false;
            }
        }
        let before: SmallVec<[usize; 2]> = self.each(tables).map(|(group, table)| group.slots.reach(table)).collect();
        for place in 0..tables.len() {
            let group = &mut self.groups[place];
            if which(group) && before[place] < tokens && !group.slots.extend(tables[place], tokens) {
                for (place, &reach) in before[..place].iter().enumerate() {
                    self.groups[place].slots.truncate(tables[place], reach);
                }
                return false;
            }
        }
        true
    }

    /// The rows below `computed` are in steps that were submitted.
    pub fn note_written(&mut self, tables: &Tables, computed: usize) {
        self.groups.iter_mut().zip(tables).for_each(|(group, &table)| group.slots.note_written(table, computed));
    }

    /// Gives back what no later token sees once `computed` tokens are.
    pub fn release_unseen(&mut self, tables: &Tables, computed: usize) {
        for (group, &table) in self.groups.iter_mut().zip(tables) {
            if let Some(window) = group.window {
                group.slots.release_front(table, (computed + 1).saturating_sub(window));
            }
        }
    }

    /// Positions from `tokens` on are not needed any more.
    pub fn truncate(&mut self, tables: &Tables, tokens: usize) {
        for (group, &table) in self.groups.iter_mut().zip(tables) {
            group.slots.truncate(table, tokens);
        }
    }

    /// Whether all that a token at position `len` sees is still there.
    pub fn can_fork(&self, tables: &Tables, len: usize) -> bool {
        self.can_fork_later(tables, len) && self.each(tables).all(|(group, table)| group.slots.reach(table) >= len)
    }

    /// Whether [`SlotGroups::can_fork`] will hold when the positions below `len` are computed.
    pub fn can_fork_later(&self, tables: &Tables, len: usize) -> bool {
        self.each(tables).all(|(group, table)| {
            let seen_from = group.window.map_or(0, |window| (len + 1).saturating_sub(window));
            group.slots.first_position(table) <= seen_from
        })
    }

    /// Tables that share the positions below `len`.
    pub fn fork(&mut self, tables: &Tables, len: usize) -> Tables {
        self.groups.iter_mut().zip(tables).map(|(group, &table)| group.slots.fork(table, len)).collect()
    }

    /// They will not grow any more.
    pub fn settle(&mut self, tables: &Tables) {
        self.groups.iter_mut().zip(tables).for_each(|(group, &table)| group.slots.settle(table));
    }

    /// Gives every slot back.
    pub fn free(&mut self, tables: Tables) {
        self.groups.iter_mut().zip(tables).for_each(|(group, table)| group.slots.free(table));
    }

    /// Where a sequence lies now, in every group; with a larger quantum than [`QUANTUM`], from the start of one.
    pub fn segments(&self, tables: &Tables) -> SmallVec<[SmallVec<[Segment; 8]>; 2]> {
        self.each(tables)
            .map(|(group, table)| {
                let mut segments = group.slots.segments(table);
                let quantum = group.slots.policy().quantum;
                if quantum > QUANTUM
                    && let Some(first) = segments.first_mut()
                {
                    // The quantum is there from its start, and no row sees what lies before the window.
                    let unseen = first.first_position % quantum;
                    first.first_slot -= unseen;
                    first.first_position -= unseen;
                    first.count += unseen;
                }
                segments
            })
            .collect()
    }

    /// Background moves of a step: at most `budget_slots` rows a group.
    pub fn plan_moves(&mut self, budget_slots: usize) {
        self.groups.iter_mut().for_each(|group| group.slots.plan_moves(budget_slots));
    }

    /// Rows that this step moves until now.
    pub fn moving(&self) -> usize {
        self.groups.iter().map(|group| group.slots.moving()).sum()
    }

    /// The moves of this step until now, by group, in order.
    pub fn take_moves_until_now(&mut self) -> Vec<Vec<Move>> {
        self.groups.iter_mut().map(|group| group.slots.take_moves_until_now()).collect()
    }

    /// The moves of this step, by group, in order, and its end.
    pub fn take_moves(&mut self) -> Vec<Vec<Move>> {
        self.groups.iter_mut().map(|group| group.slots.take_moves()).collect()
    }

    fn each<'a>(&'a self, tables: &'a Tables) -> impl Iterator<Item = (&'a Group, Table)> {
        self.groups.iter().zip(tables.iter().copied())
    }
}

impl Group {
    /// Whether a sequence may go on for ever: its window, and a quantum at either end, fit.
    fn slides(&self) -> bool {
        self.window.is_some_and(|window| self.slots.capacity() >= window + 2 * self.slots.policy().quantum)
    }

    /// Slots that a sequence of so many tokens holds at most.
    fn held(&self, tokens: usize, chunk: usize) -> usize {
        self.window.map_or(tokens, |window| tokens.min(window + chunk))
    }
}
