# Writes the state database of the older tool, third and last version, with one instance that was running.
import os
import sqlite3
import sys

os.makedirs(os.path.dirname(sys.argv[1]))
state = sqlite3.connect(sys.argv[1])
state.executescript("""
CREATE TABLE schema_info (key TEXT PRIMARY KEY, value TEXT);
INSERT INTO schema_info VALUES ('version', '3');
CREATE TABLE instances (name TEXT PRIMARY KEY, instance_uid TEXT, instance_no TEXT, display_name TEXT, pid INTEGER,
    status TEXT, health TEXT, start_time REAL, last_health_check REAL, restart_count INTEGER, config_hash TEXT,
    error_message TEXT, updated_at REAL);
CREATE TABLE runtime (name TEXT PRIMARY KEY, instance_uid TEXT, instance_no TEXT, display_name TEXT, pid INTEGER,
    port INTEGER, cmdline TEXT, binary_version TEXT, status TEXT, health TEXT, started_at REAL, last_seen_at REAL,
    last_health_ok_at REAL, restart_attempts INTEGER, last_exit_code INTEGER, last_error TEXT);
CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, ts REAL, instance_name TEXT, instance_uid TEXT, level TEXT,
    event_type TEXT, message TEXT, meta_json TEXT);
CREATE TABLE health_history (id INTEGER PRIMARY KEY AUTOINCREMENT, instance_name TEXT, instance_uid TEXT, health TEXT,
    response_time_ms REAL, error_message TEXT, checked_at REAL);
INSERT INTO instances (name, status, restart_count, updated_at) VALUES ('old', 'running', 2, 1700000000.5);
INSERT INTO runtime (name, pid, port, status) VALUES ('old', 4711, 8123, 'running');
INSERT INTO events (ts, instance_name, level, event_type, message)
    VALUES (1700000001.001, 'old', 'INFO', 'start', 'started long ago');
""")
state.commit()
