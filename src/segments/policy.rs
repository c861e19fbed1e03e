//! What the allocator may spend, in one place, and the counts of what it did.

use super::{QUANTUM, Segments};

/// The constants of the allocator.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Slots are given out in multiples of this, and a span after the first starts at a position that is a multiple of it.
    pub quantum: usize,
    /// Rows that one step may move in all, as a share of the capacity, where growth would be refused otherwise …
    pub max_moved_share: f64,
    /// … and where there is another way, or for what can wait.
    pub usual_moved_share: f64,
    /// What opening the `k`-th span after the first costs, over `k`, in rows that could be moved instead.
    pub segment_price: usize,
    /// Head-room for each growing table, in slots …
    pub head_room_slots: usize,
    /// … and at least and at most these shares of the capacity.
    pub head_room_share: (f64, f64),
    /// Below this share of used slots nothing moves, unless the cap on segments leaves no other way to grow; a table without
    /// slots is refused instead.
    pub quiet_share: f64,
    /// Merges that one step may begin.
    pub merges_a_step: usize,
    /// Copies ahead that may be under way together.
    pub copies_ahead: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            quantum: QUANTUM,
            max_moved_share: 1.0 / 4.0,
            usual_moved_share: 1.0 / 16.0,
            segment_price: 2048,
            head_room_slots: 64,
            head_room_share: (0.01, 0.05),
            quiet_share: 0.5,
            merges_a_step: 4,
            copies_ahead: 2,
        }
    }
}

/// What an allocator has done since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Rows moved.
    pub moved: u64,
    /// Of these, with fewer slots in use than the policy's quiet share: only the cap on segments makes that happen.
    pub moved_quiet: u64,
    /// Spans opened.
    pub opened: u64,
    /// Times that growth slid spans to make room.
    pub slides: u64,
    /// Times that growth gathered a table's last spans elsewhere.
    pub gathers: u64,
    /// Spans merged into the one before them.
    pub merged: u64,
    /// Copies ahead begun.
    pub copies_begun: u64,
    /// Copies ahead given up.
    pub copies_aborted: u64,
    /// Forks: none copies a row.
    pub forks: u64,
    /// Growth refused.
    pub refused: u64,
}

impl Segments {
    /// Rows that one step may move in all.
    pub fn max_moved_slots(&self) -> usize {
        self.share(self.policy.max_moved_share)
    }

    /// Rows that this step may still move, where growth would be refused otherwise.
    pub(super) fn movable_rows(&self) -> usize {
        self.max_moved_slots().saturating_sub(self.moved)
    }

    /// Rows that this step may still move where there is another way.
    pub(super) fn usual_rows(&self) -> usize {
        self.share(self.policy.usual_moved_share.min(self.policy.max_moved_share)).saturating_sub(self.moved)
    }

    /// Slots kept free for the growth of what runs, when another table asks to be admitted; none where nothing grows.
    pub fn head_room(&self) -> usize {
        let (least, most) = self.policy.head_room_share;
        if self.growing == 0 {
            return 0;
        }
        (self.growing * self.policy.head_room_slots).max(self.share(least)).min(self.share(most))
    }

    /// Whether so few slots are in use that nothing should move.
    pub(super) fn quiet(&self) -> bool {
        self.capacity - self.free < self.share(self.policy.quiet_share)
    }

    fn share(&self, share: f64) -> usize {
        (self.capacity as f64 * share) as usize
    }
}
