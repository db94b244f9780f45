package counts

import "context"

// Look asks all sources once, as Run does.
func (j *Judge) Look(ctx context.Context) { j.look(ctx) }
