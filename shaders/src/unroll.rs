//! Unrolling: loops that index a function's own arrays are written out, so that these can live in registers.
//!
//! WGSL has no word for it, and drivers differ in what they unroll by themselves; an array that is indexed by a variable goes
//! to memory. A loop is unrolled where its variable runs over known values, an array of the function is indexed with it, and
//! nothing leaves the loop early.

use naga::compact::{KeepUnused, compact};
use naga::{
    Arena, BinaryOperator, Block, Expression, FastHashMap, Function, Handle, Literal, LocalVariable, MathFunction,
    Module, Range, Span, Statement,
};

/// Turns of a loop that is unrolled, at most.
const MOST_TURNS: usize = 128;
/// Expressions of a function after its loops were unrolled, at most: a larger one stays as it is from there on.
const MOST_EXPRESSIONS: usize = 24_000;

/// Unrolls the loops of every function. Returns how many.
pub fn unroll(module: &mut Module) -> usize {
    let (constants, values) = (&module.constants, &module.global_expressions);
    let functions = module.functions.iter_mut().map(|(_, function)| function);
    let all = functions.chain(module.entry_points.iter_mut().map(|entry| &mut entry.function));
    let count = all
        .map(|function| {
            for (_, expression) in function.expressions.iter_mut() {
                if let Expression::Constant(constant) = *expression
                    && let Expression::Literal(value) = values[constants[constant].init]
                {
                    *expression = Expression::Literal(value);
                }
            }
            unroll_function(function)
        })
        .sum();
    // A module may hold no result of a call that is not made.
    compact(module, KeepUnused::Yes);
    count
}

fn unroll_function(function: &mut Function) -> usize {
    let body = std::mem::take(&mut function.body);
    let mut stores = FastHashMap::default();
    visit(&body, &mut |statement| {
        let pointers = match statement {
            Statement::Store { pointer, .. } => std::slice::from_ref(pointer),
            Statement::Call { arguments, .. } => &arguments[..],
            _ => &[],
        };
        for variable in pointers.iter().filter_map(|pointer| local(function, *pointer)) {
            *stores.entry(variable).or_default() += 1;
        }
    });
    let mut unroller = Unroller { function, stores, loops: 0, count: 0 };
    let body = unroller.block(body);
    let count = unroller.count;
    function.body = body;
    if count > 0 {
        // Names would keep what only the loops computed.
        function.named_expressions.clear();
    }
    count
}

struct Unroller<'a> {
    function: &'a mut Function,
    /// How often each variable is set, or its address given away, in the function as it was written.
    stores: FastHashMap<Handle<LocalVariable>, usize>,
    /// Loops around what is looked at.
    loops: usize,
    /// Loops unrolled.
    count: usize,
}

impl Unroller<'_> {
    /// Inner loops first, so that they are copied unrolled, and again in every copy, where their bounds may have become known.
    fn block(&mut self, block: Block) -> Block {
        let mut out = Block::new();
        for (statement, span) in statements(block) {
            let statement = match statement {
                Statement::Block(inner) => Statement::Block(self.block(inner)),
                Statement::If { condition, accept, reject } => {
                    Statement::If { condition, accept: self.block(accept), reject: self.block(reject) }
                }
                Statement::Switch { selector, mut cases } => {
                    for case in &mut cases {
                        case.body = self.block(std::mem::take(&mut case.body));
                    }
                    Statement::Switch { selector, cases }
                }
                Statement::Loop { body, continuing, break_if } => {
                    self.loops += 1;
                    let body = self.block(body);
                    self.loops -= 1;
                    match self.counted(&out, &body, &continuing, break_if) {
                        Some(counted) if counted.pays(self.function, &body) => {
                            self.write_out(counted, &body, span, &mut out);
                            continue;
                        }
                        _ => Statement::Loop { body, continuing, break_if },
                    }
                }
                other => other,
            };
            out.push(statement, span);
        }
        out
    }

    fn write_out(&mut self, counted: Counted, body: &Block, span: Span, out: &mut Block) {
        self.count += 1;
        for value in counted.values {
            let turn = copy(self.function, body, counted.variable, value);
            out.push(Statement::Block(self.block(turn)), span);
        }
        // The variable may be read behind the loop.
        let end = Expression::Literal(Literal::U32(counted.end));
        let value = self.function.expressions.append(end, span);
        out.push(Statement::Store { pointer: counted.pointer, value }, span);
    }

    /// `for (var i = a; i < b; i += c)` as naga lowers it: after `before`, where the variable was set, the loop's body begins
    /// with `if i < b {} else { break; }`, and `continuing` adds c.
    fn counted(
        &self,
        before: &Block,
        body: &Block,
        continuing: &Block,
        break_if: Option<Handle<Expression>>,
    ) -> Option<Counted> {
        let function = &*self.function;
        let known = |handle: Handle<Expression>| match function.expressions[handle] {
            Expression::Literal(Literal::U32(value)) => Some(value),
            _ => None,
        };
        let read = |handle: Handle<Expression>| match function.expressions[handle] {
            Expression::Load { pointer } => local(function, pointer),
            _ => None,
        };
        let (condition, _) = guard(body)?;
        let Expression::Binary { op: BinaryOperator::Less, left, right } = function.expressions[condition] else {
            return None;
        };
        let (variable, end) = (read(left)?, known(right)?);
        let [Statement::Emit(_), .., Statement::Store { pointer, value }] = &continuing[..] else { return None };
        let Expression::Binary { op: BinaryOperator::Add, left, right } = function.expressions[*value] else {
            return None;
        };
        let step = known(right).filter(|&step| step > 0)?;
        let adds = read(left) == Some(variable) && local(function, *pointer) == Some(variable);
        let is_step_alone = continuing.iter().filter(|statement| !matches!(statement, Statement::Emit(_))).count() == 1;
        if break_if.is_some() || !adds || !is_step_alone || leaves(body, 0) > 1 {
            return None;
        }
        // Only the step may set the variable from its start on.
        if sets(function, body, variable) {
            return None;
        }
        let set = before.iter().rev().find(|statement| !matches!(statement, Statement::Emit(_)));
        let start = match set {
            Some(Statement::Store { pointer, value }) if local(function, *pointer) == Some(variable) => *value,
            // A variable that is declared outside of any loop with a known value, and that nothing but the step sets.
            _ if self.loops == 0 && self.stores.get(&variable) == Some(&1) => function.local_variables[variable].init?,
            _ => return None,
        };
        let start = known(start)?;
        let values: Vec<u32> = (start..end).step_by(step as usize).take(MOST_TURNS + 1).collect();
        let end = values.last().map_or(start, |last| last.saturating_add(step));
        Some(Counted { variable, pointer: *pointer, values, end })
    }
}

fn statements(mut block: Block) -> Vec<(Statement, Span)> {
    let spans: Vec<_> = block.span_iter().map(|(_, span)| *span).collect();
    let empty = || Statement::Block(Block::new());
    let taken = block.iter_mut().map(|statement| std::mem::replace(statement, empty()));
    taken.zip(spans).collect()
}

/// A loop whose variable runs over known values.
struct Counted {
    variable: Handle<LocalVariable>,
    /// Its address.
    pointer: Handle<Expression>,
    values: Vec<u32>,
    /// After the last turn.
    end: u32,
}

impl Counted {
    /// Whether an array of the function, or a value, is indexed with the variable, here or in a function that is given it, and
    /// the copies are not too many.
    fn pays(&self, function: &Function, body: &Block) -> bool {
        let mut emitted = 0;
        let mut indexes = false;
        let is_from_it = |handle: Handle<Expression>| depends(function, handle, self.variable);
        visit(body, &mut |statement| match statement {
            Statement::Emit(range) => {
                for handle in range.clone() {
                    emitted += 1;
                    if let Expression::Access { base, index } = function.expressions[handle] {
                        indexes |= !is_memory(function, base) && is_from_it(index);
                    }
                }
            }
            Statement::Call { arguments, .. } => indexes |= arguments.iter().any(|argument| is_from_it(*argument)),
            _ => {}
        });
        let copies = self.values.len() * emitted;
        let is_small = self.values.len() <= 1 || function.expressions.len() + copies <= MOST_EXPRESSIONS;
        indexes && self.values.len() <= MOST_TURNS && is_small
    }
}

/// The condition under which a loop's body goes on, and the place of the statement that tests it.
fn guard(body: &Block) -> Option<(Handle<Expression>, usize)> {
    let at = body.iter().position(|statement| !matches!(statement, Statement::Emit(_)))?;
    match &body[at] {
        Statement::If { condition, accept, reject }
            if accept.is_empty() && matches!(reject[..], [Statement::Break]) =>
        {
            Some((*condition, at))
        }
        _ => None,
    }
}

fn local(function: &Function, pointer: Handle<Expression>) -> Option<Handle<LocalVariable>> {
    match function.expressions[pointer] {
        Expression::LocalVariable(variable) => Some(variable),
        _ => None,
    }
}

fn visit(block: &Block, each: &mut impl FnMut(&Statement)) {
    for statement in block.iter() {
        each(statement);
        match statement {
            Statement::Block(inner) => visit(inner, each),
            Statement::If { accept, reject, .. } => {
                visit(accept, each);
                visit(reject, each);
            }
            Statement::Switch { cases, .. } => cases.iter().for_each(|case| visit(&case.body, each)),
            Statement::Loop { body, continuing, .. } => {
                visit(body, each);
                visit(continuing, each);
            }
            _ => {}
        }
    }
}

/// How often a loop's body breaks or continues it; `switches` is how many switches are around.
fn leaves(block: &Block, switches: usize) -> usize {
    let of = |statement: &Statement| match statement {
        Statement::Break => usize::from(switches == 0),
        Statement::Continue => 1,
        Statement::Block(inner) => leaves(inner, switches),
        Statement::If { accept, reject, .. } => leaves(accept, switches) + leaves(reject, switches),
        Statement::Switch { cases, .. } => cases.iter().map(|case| leaves(&case.body, switches + 1)).sum(),
        _ => 0,
    };
    block.iter().map(of).sum()
}

/// Whether a block sets the variable, or gives its address away.
fn sets(function: &Function, block: &Block, variable: Handle<LocalVariable>) -> bool {
    let mut found = false;
    let is_it = |handle: &Handle<Expression>| local(function, *handle) == Some(variable);
    visit(block, &mut |statement| match statement {
        Statement::Store { pointer, .. } => found |= is_it(pointer),
        Statement::Call { arguments, .. } => found |= arguments.iter().any(is_it),
        _ => {}
    });
    found
}

/// Whether an access goes to storage or workgroup memory.
fn is_memory(function: &Function, mut base: Handle<Expression>) -> bool {
    loop {
        match function.expressions[base] {
            Expression::Access { base: next, .. } | Expression::AccessIndex { base: next, .. } => base = next,
            Expression::GlobalVariable(_) => return true,
            _ => return false,
        }
    }
}

/// Whether an expression is computed from the variable.
fn depends(function: &Function, handle: Handle<Expression>, variable: Handle<LocalVariable>) -> bool {
    match &function.expressions[handle] {
        Expression::Load { pointer } => local(function, *pointer) == Some(variable),
        Expression::Binary { left, right, .. } => {
            depends(function, *left, variable) || depends(function, *right, variable)
        }
        Expression::Math { arg, arg1, .. } => {
            depends(function, *arg, variable) || arg1.is_some_and(|arg| depends(function, arg, variable))
        }
        Expression::Unary { expr, .. } | Expression::As { expr, .. } => depends(function, *expr, variable),
        _ => false,
    }
}

/// A turn of the loop: what follows the guard of its body, with `value` for the variable.
fn copy(function: &mut Function, body: &Block, variable: Handle<LocalVariable>, value: u32) -> Block {
    let (_, at) = guard(body).expect("found when the loop was");
    let mut copier = Copier { expressions: &mut function.expressions, variable, value, copies: FastHashMap::default() };
    let mut out = Block::new();
    for (statement, span) in body.span_iter().skip(at + 1) {
        copier.statement(statement, *span, &mut out);
    }
    out
}

struct Copier<'a> {
    expressions: &'a mut Arena<Expression>,
    variable: Handle<LocalVariable>,
    value: u32,
    copies: FastHashMap<Handle<Expression>, Handle<Expression>>,
}

impl Copier<'_> {
    fn block(&mut self, block: &Block) -> Block {
        let mut out = Block::new();
        for (statement, span) in block.span_iter() {
            self.statement(statement, *span, &mut out);
        }
        out
    }

    fn statement(&mut self, statement: &Statement, span: Span, out: &mut Block) {
        if let Statement::Emit(range) = statement {
            return self.emit(range, span, out);
        }
        let mut copy = match statement {
            Statement::Block(inner) => return out.push(Statement::Block(self.block(inner)), span),
            Statement::If { condition, accept, reject } => {
                let (accept, reject) = (self.block(accept), self.block(reject));
                let condition = self.of(*condition);
                return out.push(Statement::If { condition, accept, reject }, span);
            }
            Statement::Switch { selector, cases } => {
                let mut cases = cases.clone();
                for case in &mut cases {
                    case.body = self.block(&case.body);
                }
                return out.push(Statement::Switch { selector: self.of(*selector), cases }, span);
            }
            Statement::Loop { body, continuing, break_if } => {
                let (body, continuing) = (self.block(body), self.block(continuing));
                let break_if = break_if.map(|handle| self.of(handle));
                return out.push(Statement::Loop { body, continuing, break_if }, span);
            }
            other => other.clone(),
        };
        match &mut copy {
            Statement::Store { pointer, value } => {
                self.replace(pointer);
                self.replace(value);
            }
            Statement::Return { value: Some(value) } => self.replace(value),
            Statement::Call { arguments, result, .. } => {
                arguments.iter_mut().for_each(|argument| self.replace(argument));
                result.iter_mut().for_each(|result| self.result(result));
            }
            Statement::Atomic { pointer, value, result, .. } => {
                self.replace(pointer);
                self.replace(value);
                result.iter_mut().for_each(|result| self.result(result));
            }
            Statement::WorkGroupUniformLoad { pointer, result } => {
                self.replace(pointer);
                self.result(result);
            }
            Statement::SubgroupBallot { result, predicate } => {
                predicate.iter_mut().for_each(|predicate| self.replace(predicate));
                self.result(result);
            }
            Statement::SubgroupCollectiveOperation { argument, result, .. } => {
                self.replace(argument);
                self.result(result);
            }
            Statement::SubgroupGather { mode, argument, result } => {
                use naga::GatherMode::*;
                match mode {
                    BroadcastFirst | QuadSwap(_) => {}
                    Broadcast(lane) | Shuffle(lane) | ShuffleDown(lane) | ShuffleUp(lane) | ShuffleXor(lane)
                    | QuadBroadcast(lane) => self.replace(lane),
                }
                self.replace(argument);
                self.result(result);
            }
            Statement::CooperativeStore { target, data } => {
                self.replace(target);
                self.replace(&mut data.pointer);
                self.replace(&mut data.stride);
            }
            Statement::Return { value: None }
            | Statement::Break
            | Statement::Continue
            | Statement::ControlBarrier(_)
            | Statement::MemoryBarrier(_) => {}
            other => unreachable!("no compute kernel has {other:?}"),
        }
        out.push(copy, span);
    }

    /// Copies expressions in their order; what became a known number needs no evaluation and leaves the range.
    fn emit(&mut self, range: &Range<Expression>, span: Span, out: &mut Block) {
        let mut first = self.expressions.len();
        for handle in range.clone() {
            let copy = self.expression(self.expressions[handle].clone());
            let is_known = matches!(copy, Expression::Literal(_));
            if is_known {
                self.flush(first, span, out);
            }
            let copy = self.expressions.append(copy, span);
            self.copies.insert(handle, copy);
            if is_known {
                first = self.expressions.len();
            }
        }
        self.flush(first, span, out);
    }

    fn flush(&self, first: usize, span: Span, out: &mut Block) {
        if first < self.expressions.len() {
            let emitted = self.expressions.range_from(first);
            out.push(Statement::Emit(emitted), span);
        }
    }

    fn expression(&self, mut expression: Expression) -> Expression {
        use Expression as E;
        let each = |handles: &mut [&mut Handle<Expression>]| handles.iter_mut().for_each(|handle| self.replace(handle));
        match &mut expression {
            E::Load { pointer } => match self.expressions[*pointer] {
                E::LocalVariable(variable) if variable == self.variable => return E::Literal(Literal::U32(self.value)),
                _ => each(&mut [pointer]),
            },
            E::Compose { components, .. } => components.iter_mut().for_each(|handle| self.replace(handle)),
            E::Access { base, index } => {
                each(&mut [base, index]);
                if let E::Literal(Literal::U32(index)) = self.expressions[*index] {
                    return E::AccessIndex { base: *base, index };
                }
            }
            E::Binary { op, left, right } => {
                each(&mut [left, right]);
                let (left, right) = (&self.expressions[*left], &self.expressions[*right]);
                if let (E::Literal(Literal::U32(left)), E::Literal(Literal::U32(right))) = (left, right)
                    && let Some(value) = fold(*op, *left, *right)
                {
                    return E::Literal(Literal::U32(value));
                }
            }
            E::AccessIndex { base, .. } => each(&mut [base]),
            E::Splat { value, .. } => each(&mut [value]),
            E::Swizzle { vector, .. } => each(&mut [vector]),
            E::Unary { expr, .. } | E::As { expr, .. } => each(&mut [expr]),
            E::Select { condition, accept, reject } => each(&mut [condition, accept, reject]),
            E::Relational { argument, .. } => each(&mut [argument]),
            E::Math { fun, arg, arg1, arg2, arg3 } => {
                each(&mut [arg]);
                [&mut *arg1, arg2, arg3].into_iter().flatten().for_each(|arg| self.replace(arg));
                let known = |handle: Handle<Expression>| match self.expressions[handle] {
                    E::Literal(Literal::U32(value)) => Some(value),
                    _ => None,
                };
                if let (MathFunction::Min, Some(left), Some(right)) = (*fun, known(*arg), arg1.and_then(known)) {
                    return E::Literal(Literal::U32(left.min(right)));
                }
            }
            E::ArrayLength(array) => each(&mut [array]),
            E::CooperativeLoad { data, .. } => each(&mut [&mut data.pointer, &mut data.stride]),
            E::CooperativeMultiplyAdd { a, b, c } => each(&mut [a, b, c]),
            other => unreachable!("no compute kernel emits {other:?}"),
        }
        expression
    }

    fn of(&self, handle: Handle<Expression>) -> Handle<Expression> {
        self.copies.get(&handle).copied().unwrap_or(handle)
    }

    fn replace(&self, handle: &mut Handle<Expression>) {
        *handle = self.of(*handle);
    }

    /// Copies the expression that stands for what a statement gives.
    fn result(&mut self, handle: &mut Handle<Expression>) {
        let copy = self.expressions.append(self.expressions[*handle].clone(), Span::UNDEFINED);
        self.copies.insert(*handle, copy);
        *handle = copy;
    }
}

fn fold(op: BinaryOperator, left: u32, right: u32) -> Option<u32> {
    match op {
        BinaryOperator::Add => left.checked_add(right),
        BinaryOperator::Subtract => left.checked_sub(right),
        BinaryOperator::Multiply => left.checked_mul(right),
        BinaryOperator::Divide => left.checked_div(right),
        BinaryOperator::Modulo => left.checked_rem(right),
        _ => None,
    }
}
