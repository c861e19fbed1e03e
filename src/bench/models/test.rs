//! What a bench runs, and what it is called.

use crate::segments::QUANTUM;

/// Whether a prompt is read or an answer written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A prompt, as fast as it is read.
    Prefill,
    /// An answer, a token of each sequence at a time.
    Decode,
}

/// One test: some tokens of each of some sequences, at the depths that they have already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// What is done.
    pub kind: Kind,
    /// Tokens of the prompt, or of each answer.
    pub tokens: usize,
    /// Tokens that each sequence has before.
    pub depths: Vec<usize>,
}

impl Kind {
    /// `prefill` or `decode`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Prefill => "prefill",
            Kind::Decode => "decode",
        }
    }
}

impl Test {
    /// All combinations, by depth: prompts first, then answers of every batch; then the ragged mixes.
    pub fn all(
        prompts: &[usize],
        gens: &[usize],
        depths: &[usize],
        batches: &[usize],
        ragged: &[Vec<usize>],
    ) -> Vec<Test> {
        let mut tests = Vec::new();
        for &depth in depths {
            for &tokens in prompts.iter().filter(|&&tokens| tokens > 0) {
                tests.push(Test { kind: Kind::Prefill, tokens, depths: vec![depth] });
            }
            for &tokens in gens.iter().filter(|&&tokens| tokens > 0) {
                for &batch in batches {
                    tests.push(Test { kind: Kind::Decode, tokens, depths: vec![depth; batch] });
                }
            }
        }
        for mix in ragged {
            for &tokens in gens.iter().filter(|&&tokens| tokens > 0) {
                tests.push(Test { kind: Kind::Decode, tokens, depths: mix.clone() });
            }
        }
        tests
    }

    /// `pp512`, `tg128 @ d4096`, `tg128 b8 @ d4096`; of unequal depths `tg128 b4 @ d512,4096,32768x2`.
    pub fn name(&self) -> String {
        let word = if self.kind == Kind::Prefill { "pp" } else { "tg" };
        let batch = if self.depths.len() > 1 { format!(" b{}", self.depths.len()) } else { String::new() };
        let equal = self.depths.windows(2).all(|pair| pair[0] == pair[1]);
        let depth = match self.depths[..] {
            [0, ..] if equal => String::new(),
            [depth, ..] if equal => format!(" @ d{depth}"),
            _ => format!(" @ d{}", runs(&self.depths)),
        };
        format!("{word}{}{batch}{depth}", self.tokens)
    }

    /// Tokens of the prompt behind the depth.
    pub(super) fn prompt(&self) -> usize {
        if self.kind == Kind::Prefill { self.tokens } else { 1 }
    }

    /// Tokens that are generated.
    pub(super) fn answer(&self) -> usize {
        if self.kind == Kind::Prefill { 1 } else { self.tokens }
    }

    /// Tokens of the longest sequence in the end.
    pub(super) fn longest(&self) -> usize {
        self.depths.iter().max().map_or(0, |depth| depth + self.prompt() + self.answer())
    }

    /// Slots that its sequences need at once, with the head-room that lets the last of them in.
    pub fn slots(&self) -> usize {
        let each = |depth: &usize| (depth + self.prompt() + self.answer()).next_multiple_of(QUANTUM) + QUANTUM;
        let slots: usize = self.depths.iter().map(each).sum();
        if self.depths.len() > 1 { slots + slots / 8 + 4 * QUANTUM * self.depths.len() } else { slots }
    }

    /// No more than `steps` tokens of an answer, from its middle; all of a prompt.
    #[must_use]
    pub(super) fn middle(&self, steps: usize) -> Test {
        if self.kind == Kind::Prefill || self.tokens <= steps {
            return self.clone();
        }
        let before = (self.tokens - steps) / 2;
        Test { tokens: steps, depths: self.depths.iter().map(|depth| depth + before).collect(), ..*self }
    }
}

/// `512,4096,32768x2`
fn runs(depths: &[usize]) -> String {
    let run = |run: &[usize]| if run.len() == 1 { run[0].to_string() } else { format!("{}x{}", run[0], run.len()) };
    depths.chunk_by(|a, b| a == b).map(run).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_named_as_llama_bench_does_and_come_by_depth() {
        let tests = Test::all(&[512], &[128], &[0, 4096], &[1, 8], &[vec![512, 4096, 32_768, 32_768]]);
        let names: Vec<_> = tests.iter().map(Test::name).collect();
        let wanted = [
            "pp512",
            "tg128",
            "tg128 b8",
            "pp512 @ d4096",
            "tg128 @ d4096",
            "tg128 b8 @ d4096",
            "tg128 b4 @ d512,4096,32768x2",
        ];
        assert_eq!(names, wanted);
        assert!(Test::all(&[0], &[0], &[0], &[1], &[]).is_empty(), "0 is none, as llama-bench has it");
    }

    #[test]
    fn the_middle_of_an_answer_lies_as_far_from_both_ends() {
        let test = Test { kind: Kind::Decode, tokens: 128, depths: vec![100, 0] };
        assert_eq!(test.middle(4), Test { kind: Kind::Decode, tokens: 4, depths: vec![162, 62] });
        assert_eq!(test.middle(200), test);
        assert!(test.slots() > 2 * 128 + 100);
    }
}
