package store

import "context"

// FillDisk makes the database refuse to grow, as a full disk does.
func (s *Store) FillDisk(ctx context.Context) error {
	return s.Do(ctx, "PRAGMA max_page_count = 1") // means: as large as it is now
}

// FreeDisk undoes FillDisk.
func (s *Store) FreeDisk(ctx context.Context) error {
	return s.Do(ctx, "PRAGMA max_page_count = 1000000")
}

// Setting asks the writing connection for one of its settings.
func (s *Store) Setting(ctx context.Context, name string) (value string, err error) {
	err = s.write.QueryRowContext(ctx, "PRAGMA "+name).Scan(&value)
	return value, err
}

// Do runs a statement on the writing connection, to make a file that this version would not write.
func (s *Store) Do(ctx context.Context, statement string) error {
	_, err := s.write.ExecContext(ctx, statement)
	return err
}
