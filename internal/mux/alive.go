package mux

// Alive asks the other side for an answer and waits for it, for as long as a write may take. Without an error the other
// side had not given this session up when it was asked.
func (s *Session) Alive() error {
	if _, err := s.inner.Ping(); err != nil {
		return s.explain("ask the other side for an answer", err)
	}
	return nil
}
