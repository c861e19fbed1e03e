//! Prompts as the models' makers would have them, written out by hand.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use raglan_models::{ChatOptions, ChatTemplate, Checkpoint, Error, Message, TokenizerConfig};
use serde_json::json;

/// SmolLM2's, as the file of the model has it (Apache-2.0).
const SMOLLM2: &str =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}";

/// In the manner of Llama 3: the system message apart, contents trimmed, a date.
const LLAMA3: &str = "{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now(\"%d %b %Y\") %}
    {%- else %}
        {%- set date_string = \"26 Jul 2024\" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = \"\" %}
{%- endif %}
{#- The head comes always. #}
{{- \"<|start_header_id|>system<|end_header_id|>\\n\\n\" }}
{%- if tools is not none %}
    {{- \"Tools: \" + (tools | tojson) + \"\\n\" }}
{%- endif %}
{{- \"Today: \" + date_string + \"\\n\\n\" }}
{{- system_message }}
{{- \"<|eot_id|>\" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
";

/// In the manner of Qwen3: a search from the end with a namespace, thoughts cut out of earlier answers.
const QWEN: &str = "{%- set ns = namespace(last=messages|length - 1, searching=true) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == \"user\" and not(message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if message.role == \"assistant\" %}
        {%- set thought = '' %}
        {%- if message.thought is defined and message.thought is not none %}
            {%- set thought = message.thought %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' ~ message.role ~ '\\n' ~ content ~ '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}";

/// In the manner of Mistral: roles must take turns.
const MISTRAL: &str = "{{ bos_token }}{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
    {% if message['role'] == 'user' %}
{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}
{{ message['content'] + eos_token}}{% else %}
{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}
{% endfor %}
";

fn template(source: &str) -> Result<ChatTemplate, Error> {
    ChatTemplate::new(Path::new("chat_template.jinja"), source, Some("<s>".into()), Some("</s>".into()))
}

fn render(source: &str, messages: &[(&str, &str)], variables: &[(&str, serde_json::Value)]) -> Result<String, Error> {
    let messages: Vec<Message> = messages.iter().map(|(role, content)| Message::new(*role, *content)).collect();
    let variables: BTreeMap<String, _> =
        variables.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    template(source)?.render(&messages, &ChatOptions { variables, ..ChatOptions::default() })
}

#[test]
fn smollm2_brings_its_system_message_unless_one_is_given() {
    assert_eq!(
        render(SMOLLM2, &[("user", "Hi")], &[]).expect("renders"),
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
         <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
    let talk = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello <b>&'\"</b>"), ("user", "Bye")];
    assert_eq!(
        render(SMOLLM2, &talk, &[]).expect("renders"),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
         <|im_start|>assistant\nHello <b>&'\"</b><|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    );
    let finished = ChatOptions { add_generation_prompt: false, ..ChatOptions::default() };
    let prompt = template(SMOLLM2).and_then(|t| t.render(&[Message::new("system", "x")], &finished));
    assert_eq!(prompt.expect("renders"), "<|im_start|>system\nx<|im_end|>\n");
}

#[test]
fn llama3_has_the_system_message_the_date_and_trimmed_contents() {
    let date = [("date_string", json!("1 Jan 2026"))];
    assert_eq!(
        render(LLAMA3, &[("system", "  Be kind.\n"), ("user", " Hi\n\n")], &date).expect("renders"),
        "<s><|start_header_id|>system<|end_header_id|>\n\nToday: 1 Jan 2026\n\nBe kind.<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    );
    let tools = [date[0].clone(), ("tools", json!([{"a": "<é>"}, {"b": [1, 2.5, null, true]}]))];
    let prompt = render(LLAMA3, &[("user", "Hi")], &tools).expect("renders");
    assert!(prompt.contains(r#"Tools: [{"a": "<é>"}, {"b": [1, 2.5, null, true]}]"#), "{prompt}");
    let today = render(LLAMA3, &[("user", "Hi")], &[]).expect("renders");
    let today = today.split("Today: ").nth(1).and_then(|rest| rest.split('\n').next()).expect("has a date");
    assert!(today.len() == 11 && today.ends_with(char::is_numeric), "{today}");
}

#[test]
fn qwen_forgets_earlier_thoughts_and_can_be_told_not_to_think() {
    let talk = [
        ("user", "1+1?"),
        ("assistant", "<think>\nEasy.\n</think>\n\n2"),
        ("user", "And 2+2?"),
        ("assistant", "<think>\nHm.\n</think>\n\n4"),
    ];
    let turns =
        "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n<|im_start|>user\nAnd 2+2?<|im_end|>\n";
    let last = "<|im_start|>assistant\n<think>\nHm.\n</think>\n\n4<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(render(QWEN, &talk, &[]).expect("renders"), format!("{turns}{last}"));
    let quiet = [("enable_thinking", json!(false))];
    let want = format!("{turns}<|im_start|>assistant\n<think>\n\n</think>\n\n");
    assert_eq!(render(QWEN, &talk[..3], &quiet).expect("renders"), want);
    let loud = [("enable_thinking", json!(true))];
    assert_eq!(render(QWEN, &talk[..3], &loud).expect("renders"), format!("{turns}<|im_start|>assistant\n"));
}

#[test]
fn mistral_takes_turns_and_says_so() {
    let talk = [("user", "Hi"), ("assistant", "Hello"), ("user", "Bye")];
    assert_eq!(render(MISTRAL, &talk, &[]).expect("renders"), "<s>[INST] Hi [/INST]Hello</s>[INST] Bye [/INST]");
    let refusal = render(MISTRAL, &[("user", "Hi"), ("user", "Hi?")], &[]).expect_err("refuses");
    let words = "chat_template.jinja: chat template, line 3: Conversation roles must alternate";
    assert!(refusal.to_string().starts_with(words), "{refusal}");
}

#[test]
fn blocks_lines_and_loops_are_as_in_transformers() {
    for (source, want) in [
        ("a\n  {% if true %}\nb\n  {% endif %}\nc\n", "a\nb\nc"),
        ("{% generation %}x{% endgeneration %}{%- generation -%} y {%- endgeneration %}", "xy"),
        (
            "{% for m in [1, 2, 3, 4] %}{% if m == 2 %}{% continue %}{% endif %}{% if m == 4 %}{% break %}{% endif %}{{ m }}{% endfor %}",
            "13",
        ),
        ("{{ messages[0].content.strip().upper() }}|{{ messages[0].get('name', 'nobody') }}", "HI|nobody"),
        (
            "{{ missing }}|{{ missing is defined }}|{{ none }}|{{ true }}|{{ 7 // 2 }}|{{ 1.0 }}",
            "|False|None|True|3|1.0",
        ),
        (
            "{{ messages | map(attribute='role') | join(',') }}|{{ messages[-1].role }}|{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
            "user|user|1",
        ),
        (
            "{% macro say(x, loud=false) %}{{ x.upper() if loud else x }}{% endmacro %}{{ say('a') }}{{ say('b', loud=true) }}",
            "aB",
        ),
        ("{% for k, v in {'b': 1, 'a': 2}.items() %}{{ k }}{{ v }}{{ ', ' if not loop.last }}{% endfor %}", "b1, a2"),
        (
            "{{ {'a': [1], 'b': {}} | tojson }}{{ [] | tojson(indent=2) }}{{ {'a': [1]} | tojson(indent=4) }}",
            "{\"a\": [1], \"b\": {}}[]{\n    \"a\": [\n        1\n    ]\n}",
        ),
        (
            "{{ 'a=%s' | format(1) }}{{ 'x,y'.split(',')[1] }}{{ 'ab'.replace('a', 'c') }}{{ ' t '.rstrip() }}",
            "a=1ycb t",
        ),
    ] {
        assert_eq!(render(source, &[("user", " hi ")], &[]).unwrap_or_else(|e| e.to_string()), want, "{source}");
    }
}

#[test]
fn errors_name_the_file_and_the_line() {
    let syntax = template("{{ bos_token }}\n{% if %}\n").expect_err("does not parse").to_string();
    assert!(syntax.starts_with("chat_template.jinja: chat template, line 2: "), "{syntax}");
    let failure = render("\n\n{{ messages[0].nothing.more }}", &[("user", "x")], &[]).expect_err("fails").to_string();
    assert!(failure.starts_with("chat_template.jinja: chat template, line 3: "), "{failure}");
    let function = render("{{ open('/etc/passwd') }}", &[], &[]).expect_err("has no files").to_string();
    assert!(function.contains("open"), "{function}");
}

#[test]
fn a_template_cannot_run_on_or_fill_the_memory() {
    for source in [
        "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for a in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{{ 'x' * 99999999 * 99999999 }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ] {
        assert!(render(source, &[], &[]).is_err(), "{source}");
    }
    let deep = "{% if true %}".repeat(5000) + &"{% endif %}".repeat(5000);
    assert!(render(&deep, &[], &[]).is_err());
    let long = "word ".repeat(200_000);
    assert!(
        render(QWEN, &[("user", &long), ("assistant", &long), ("user", "Hi")], &[]).is_ok(),
        "two megabytes of talk"
    );
}

#[test]
fn the_embedded_model_has_a_template() {
    let checkpoint = Checkpoint::tiny().expect("is whole");
    let template = ChatTemplate::open(&checkpoint).expect("compiles").expect("is there");
    let prompt = template.render(&[Message::new("user", "Hi")], &ChatOptions::default()).expect("renders");
    assert_eq!(prompt, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

#[test]
fn of_several_templates_the_default_is_taken() {
    let path = Path::new("tokenizer_config.json");
    let parse =
        |list: serde_json::Value| TokenizerConfig::parse(path, json!({ "chat_template": list }).to_string().as_bytes());
    let two = json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]);
    assert_eq!(parse(two).expect("parses").chat_template(path).expect("has one"), Some("d"));
    let none = parse(json!([{"name": "tool_use", "template": "t"}])).expect("parses");
    assert!(none.chat_template(path).expect_err("has no default").to_string().contains("tool_use"));
    assert!(parse(json!(7)).expect_err("is no template").to_string().contains("chat_template"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_template_panics(source in r"(\{%|%\}|\{\{|\}\}|-|if|for|endif| |x|'|\||\(|\)|\[|::|\.|~|1|raise_exception|messages|é){0,24}") {
        let _ = render(&source, &[("user", "hi")], &[]);
    }
}
