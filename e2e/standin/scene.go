package standin

// A Scene says how the stand-in answers one valid request to /v1/messages. The zero Scene is a short greeting.
type Scene struct {
	Content []Block // what the answer says; default: a greeting

	Error *Error // sent instead of an answer
	Hang  bool   // it never answers

	// Step, if set, lets a test decide when to send the next event: every event but the first waits
	// for one receive from it.
	Step <-chan struct{}
}

// Play sets the scenes for the next requests, one each. When they are used up, the zero Scene is played.
func (s *Server) Play(scenes ...Scene) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scenes = append(s.scenes, scenes...)
}

// scene returns the next request's scene.
func (s *Server) scene() Scene {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.scenes) == 0 {
		return Scene{}
	}
	scene := s.scenes[0]
	s.scenes = s.scenes[1:]
	return scene
}
