//! The command, as a process.

use serde_json::{Value, json};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

fn engine(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llmd-sched"));
    command.arg("engine").args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

async fn ready(child: &mut Child) -> Value {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().expect("a ready line");
    serde_json::from_str(&line).unwrap()
}

/// By the shell's own `kill`: not every machine has the program.
async fn terminate(child: &Child) {
    let command = format!("kill -TERM {}", child.id().unwrap());
    assert!(Command::new("sh").args(["-c", &command]).status().await.unwrap().success());
}

async fn post(address: &str, body: &Value) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = body.to_string();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    stream
}

fn address(ready: &Value) -> String {
    format!("{}:{}", ready["host"].as_str().unwrap(), ready["port"])
}

#[tokio::test]
async fn it_says_where_it_listens_and_finishes_what_is_in_flight() {
    let args = ["--port", "0", "--model", "m", "--kv-blocks", "100", "--data-parallel-size", "2"];
    let mut child = engine(&args).args(["--speed", "5"]).spawn().unwrap();
    let ready = ready(&mut child).await;
    assert_eq!((&ready["model"], &ready["kv_blocks"]), (&json!("m"), &json!(100)));
    assert_eq!(ready["kv_events"].as_array().unwrap().len(), 2);
    let body = json!({"prompt": "a", "max_tokens": 100, "stream": true});
    let mut stream = post(&address(&ready), &body).await;
    let mut start = [0; 600];
    stream.read_exact(&mut start).await.unwrap();

    terminate(&child).await;

    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("data: [DONE]"), "{rest}");
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test]
async fn what_takes_longer_than_the_grace_is_broken_off() {
    let mut child = engine(&["--port", "0", "--shutdown-grace", "0"]).spawn().unwrap();
    let ready = ready(&mut child).await;
    let body = json!({"prompt": "a", "max_tokens": 100_000, "stream": true});
    let mut stream = post(&address(&ready), &body).await;
    let mut start = [0; 600];
    stream.read_exact(&mut start).await.unwrap();

    terminate(&child).await;

    assert!(child.wait().await.unwrap().success());
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(!String::from_utf8_lossy(&rest).contains("[DONE]"));
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let mut first = engine(&["--port", "0"]).spawn().unwrap();
    let port = ready(&mut first).await["port"].to_string();

    let second = engine(&["--port", &port]).output().await.unwrap();

    assert_eq!(second.status.code(), Some(1));
    let message = String::from_utf8(second.stderr).unwrap();
    assert!(message.starts_with(&format!("llmd-sched: cannot listen on 127.0.0.1:{port}: ")));
    assert_eq!(second.stdout, b"");
}

#[tokio::test]
async fn mistakes_on_the_command_line_have_code_2() {
    let output = engine(&["--profile", "gpt-2"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("no such profile"));
    let mut help = Command::new(env!("CARGO_BIN_EXE_llmd-sched"));
    let output = help.arg("--help").output().await.unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("engine"));
}
