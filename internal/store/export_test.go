package store

import "context"

// FillDisk makes the database refuse to grow, as a full disk does.
func (s *Store) FillDisk(ctx context.Context) error {
	_, err := s.write.ExecContext(ctx, "PRAGMA max_page_count = 1") // means: as large as it is now
	return err
}

// SetFormat pretends that another version wrote the file.
func (s *Store) SetFormat(ctx context.Context, statement string) error {
	_, err := s.write.ExecContext(ctx, statement)
	return err
}
