// Package books holds what a service made of events, so that each counts once and in the order in which it happened.
package books

import (
	"database/sql"
	"fmt"

	_ "modernc.org/sqlite"
)

const tables = `PRAGMA busy_timeout = 5000;
	CREATE TABLE IF NOT EXISTS done (key TEXT PRIMARY KEY);
	CREATE TABLE IF NOT EXISTS latest (entity TEXT PRIMARY KEY, sequence INTEGER, event TEXT)`

const upsert = `INSERT INTO latest VALUES (?, ?, ?) ON CONFLICT (entity) DO UPDATE
	SET sequence = excluded.sequence, event = excluded.event WHERE excluded.sequence >= latest.sequence`

// Books are two tables: the keys of what was done, and the latest event of each entity.
type Books struct{ db *sql.DB }

// Open opens a file, and makes it if there is none.
func Open(file string) (*Books, error) {
	db, err := sql.Open("sqlite", file)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // SQLite has one writer
	_, err = db.Exec(tables)
	return &Books{db}, err
}

// Do does what an event asks for, unless it was done. The key is never there without it, nor the other way round.
func (b *Books) Do(key, entity, event string, sequence int64) error {
	tx, err := b.db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after Commit
	if changed, err := exec(tx, "INSERT INTO done VALUES (?) ON CONFLICT DO NOTHING", key); err != nil || changed == 0 {
		return err
	}
	changed, err := exec(tx, upsert, entity, sequence, event)
	if err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	fmt.Println("done", key, entity, sequence, event, map[int64]string{0: "late"}[changed])
	return nil
}

func exec(tx *sql.Tx, statement string, values ...any) (changed int64, err error) {
	result, err := tx.Exec(statement, values...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}
