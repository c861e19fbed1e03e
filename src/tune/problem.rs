//! A shape of any space, its choices, and how they are measured.

use super::attention::{AttentionProblem, Known, known};
use super::linear::LinearProblem;
use super::rig::Rig;
use super::shapes::{Ragged, Sequence, Shape};
use crate::error::Error;
use crate::gpu::Variant;
use crate::schedules::{AttentionChoice, Form, LinearChoice, LinearShape, attention, linear};
use raglan_tuner::{Candidate, Cost, Space};

/// One way to run a shape.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Choice {
    Linear(LinearChoice),
    Attention(AttentionChoice),
}

impl Choice {
    /// As the tuner writes it.
    pub(super) fn candidate(&self) -> Candidate {
        match self {
            Choice::Linear(choice) => choice.candidate(),
            Choice::Attention(choice) => choice.candidate(),
        }
    }
}

/// A shape with all that is known of it before it is run.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) space: &'static Space,
    /// As the tuner sees it.
    pub(super) descriptor: Vec<f32>,
    /// What hand-written rules choose.
    pub(super) default: Choice,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Linear(LinearShape),
    Attention(Box<(Ragged, Known)>),
}

impl Subject {
    /// `None` where the shape is more than one problem.
    pub(super) fn of(rig: &Rig, shape: Shape) -> Option<Subject> {
        Some(match shape {
            Shape::Linear(shape) => Subject {
                space: linear::space(shape.rows),
                descriptor: linear::descriptor(&shape).into(),
                default: Choice::Linear(rig.kernels.planner.linear_rules(&shape)),
                kind: Kind::Linear(shape),
            },
            Shape::Attention(batch) => {
                let known = known(rig, &batch)?;
                Subject {
                    space: attention::space(batch.form),
                    descriptor: attention::descriptor(&known.stats).into(),
                    default: Choice::Attention(known.default.clone()),
                    kind: Kind::Attention(Box::new((batch, known))),
                }
            }
        })
    }

    /// The smallest shape that runs the same kernels.
    fn tiny(&self, rig: &Rig) -> Option<Subject> {
        let shape = match &self.kind {
            Kind::Linear(shape) => {
                let rows = if shape.rows <= linear::FEW_ROWS { shape.rows } else { linear::FEW_ROWS + 1 };
                Shape::Linear(LinearShape { rows, cols: 64, inner: 1024, ..*shape })
            }
            Kind::Attention(known) => {
                let (batch, _) = &**known;
                let rows = batch.sequences.iter().map(|sequence| sequence.rows).max().unwrap_or(1);
                let sequences = vec![Sequence { rows, computed: 64, is_cut: true }];
                Shape::Attention(Ragged { sequences, ..batch.clone() })
            }
        };
        Subject::of(rig, shape)
    }

    /// Every choice that is legal for the shape.
    pub(super) fn all(&self, rig: &Rig) -> Vec<Choice> {
        let all: Vec<Choice> = match &self.kind {
            Kind::Linear(shape) => linear::all(shape.rows, rig.terms()).into_iter().map(Choice::Linear).collect(),
            Kind::Attention(known) => {
                let (batch, known) = &**known;
                let all = attention::all(batch.form, &batch.heads, rig.terms(), &known.usual);
                all.into_iter().map(Choice::Attention).collect()
            }
        };
        all.into_iter().filter(|choice| self.is_legal(rig, choice)).collect()
    }

    /// What the tuner wrote, where that is legal here.
    pub(super) fn choice(&self, rig: &Rig, candidate: &Candidate) -> Option<Choice> {
        let choice = match &self.kind {
            Kind::Linear(_) => Choice::Linear(LinearChoice::of(candidate)?),
            Kind::Attention(known) => Choice::Attention(AttentionChoice::of(candidate, known.0.heads.head_stride)?),
        };
        self.is_legal(rig, &choice).then_some(choice)
    }

    fn is_legal(&self, rig: &Rig, choice: &Choice) -> bool {
        match (&self.kind, choice) {
            (Kind::Linear(shape), Choice::Linear(choice)) => linear::legal(choice, shape, rig.terms()),
            (Kind::Attention(known), Choice::Attention(choice)) => {
                let (batch, known) = &**known;
                (choice.form() == Form::Vector) == (batch.form == Form::Vector)
                    && attention::legal(choice, &batch.heads, known.packed_rows, rig.terms())
            }
            _ => false,
        }
    }

    /// What a choice costs here.
    pub(super) fn cost(&self, rig: &Rig, choice: &Choice) -> Cost {
        match (&self.kind, choice) {
            (Kind::Linear(shape), Choice::Linear(choice)) => linear::cost(choice, shape, rig.terms()),
            (Kind::Attention(known), Choice::Attention(choice)) => attention::cost(choice, &known.1.stats, rig.terms()),
            _ => Cost::ILLEGAL,
        }
    }

    /// Puts the shape's inputs on the adapter.
    ///
    /// # Errors
    /// If there is no room, the adapter was lost, or it cannot run what the rules choose.
    pub(super) fn open(&self, rig: &mut Rig) -> Result<Problem, Error> {
        let rotated = rig.rotated_bytes();
        self.open_with(rig, rotated)
    }

    fn open_with(&self, rig: &mut Rig, rotated_bytes: u64) -> Result<Problem, Error> {
        Ok(match (&self.kind, &self.default) {
            (Kind::Linear(shape), Choice::Linear(default)) => {
                Problem::Linear(Box::new(LinearProblem::new(rig, *shape, default, rotated_bytes)?))
            }
            (Kind::Attention(known), _) => {
                Problem::Attention(Box::new(AttentionProblem::new(rig, known.0.clone(), &known.1)?))
            }
            _ => unreachable!("a product's default is a product's choice"),
        })
    }

    /// Runs a choice once on the smallest shape with its kernels, so that what drivers compile late is compiled. What goes wrong
    /// is met again where it counts.
    pub(super) fn warm(&self, rig: &mut Rig, choice: &Choice) {
        if let Some(tiny) = self.tiny(rig).filter(|tiny| tiny.is_legal(rig, choice))
            && let Ok(mut problem) = tiny.open_with(rig, 0)
        {
            let _ = problem.check(rig, choice);
        }
    }
}

/// A shape whose inputs are on the adapter.
pub(super) enum Problem {
    Linear(Box<LinearProblem>),
    Attention(Box<AttentionProblem>),
}

const KIND: &str = "a choice of the shape's own kind";

impl Problem {
    /// The kernels that a choice runs.
    ///
    /// # Errors
    /// If the adapter was lost.
    pub(super) fn variants(&mut self, rig: &mut Rig, choice: &Choice) -> Result<Vec<Variant>, Error> {
        match (self, choice) {
            (Problem::Linear(problem), Choice::Linear(choice)) => Ok(problem.variants(rig, choice)),
            (Problem::Attention(problem), Choice::Attention(choice)) => problem.variants(rig, choice),
            _ => unreachable!("{KIND}"),
        }
    }

    /// Runs a choice once and compares what it computes with the default's: its microseconds, or what is wrong with it.
    ///
    /// # Errors
    /// If the adapter was lost, or refused something.
    pub(super) fn check(&mut self, rig: &mut Rig, choice: &Choice) -> Result<Result<f64, String>, Error> {
        match (self, choice) {
            (Problem::Linear(problem), Choice::Linear(choice)) => problem.check(rig, choice),
            (Problem::Attention(problem), Choice::Attention(choice)) => problem.check(rig, choice),
            _ => unreachable!("{KIND}"),
        }
    }

    /// Microseconds of a choice that takes about `about_us`.
    ///
    /// # Errors
    /// If the adapter was lost, or refused something.
    pub(super) fn time(&mut self, rig: &mut Rig, choice: &Choice, about_us: f64) -> Result<f64, Error> {
        match (self, choice) {
            (Problem::Linear(problem), Choice::Linear(choice)) => problem.time(rig, choice, about_us),
            (Problem::Attention(problem), Choice::Attention(choice)) => problem.time(rig, choice, about_us),
            _ => unreachable!("{KIND}"),
        }
    }
}
